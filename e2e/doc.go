// Package e2e drives the built programs as their users do: `vivarium up` on this machine, plain kubectl with a tenant's
// kubeconfig, the pools' own kubeconfigs to see what really runs. It links nothing of the components and must never reach
// into them: what cannot be seen from outside is not tested here.
//
// Every scenario runs for two tenants with equal names at the same time. Where the machine cannot run containers the
// pools' nodes are simulated and the scenarios that need a container are skipped, saying so. Start at [TestMain].
package e2e
