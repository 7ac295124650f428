#!/bin/sh
# Regenerates everything that is generated from the API types. Run from anywhere; needs nothing but Go.
set -eu
cd "$(dirname "$0")/.."
tool() { go tool -modfile=hack/tools/go.mod "$@"; }

tool deepcopy-gen --output-file zz_generated.deepcopy.go --go-header-file hack/boilerplate.go.txt ./api/v1alpha1
# The packages after the first are what its fields are made of; the machinery wants every definition it may meet.
common="k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version"
openapi() { # DIRECTORY, PACKAGE, packages that are not ours
	# shellcheck disable=SC2086
	tool openapi-gen --go-header-file hack/boilerplate.go.txt \
		--output-dir "$1" --output-pkg "vivarium.io/vivarium/$1" \
		--output-file zz_generated.openapi.go --output-model-name-file zz_generated.model_name.go \
		--readonly-pkg "$(echo $common $3 | tr ' ' ,)" --report-filename /dev/null \
		$2 $common
}
openapi gateway/internal/admin/openapi "./api/v1alpha1 k8s.io/api/flowcontrol/v1" k8s.io/api/flowcontrol/v1
openapi vk-provider/internal/usage/openapi k8s.io/metrics/pkg/apis/metrics/v1beta1 k8s.io/metrics/pkg/apis/metrics/v1beta1
