// Module kubeovn pins the release of Kube-OVN whose custom resources the driver network/kubeovn is tested against. Its
// tests read them from the module cache; nothing of it is compiled, and nothing enters the product's graph.
module vivarium.io/vivarium/hack/kubeovn

go 1.26.0

require github.com/kubeovn/kube-ovn v1.16.2
