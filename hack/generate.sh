#!/bin/sh
# Regenerates everything that is generated from the API types. Run from anywhere; needs nothing but Go.
set -eu
cd "$(dirname "$0")/.."
tool() { go tool -modfile=hack/tools/go.mod "$@"; }

tool deepcopy-gen --output-file zz_generated.deepcopy.go --go-header-file hack/boilerplate.go.txt ./api/v1alpha1
# The packages after the first are what its fields are made of; the machinery wants every definition it may meet.
tool openapi-gen --go-header-file hack/boilerplate.go.txt \
	--output-dir gateway/internal/admin/openapi --output-pkg vivarium.io/vivarium/gateway/internal/admin/openapi \
	--output-file zz_generated.openapi.go --output-model-name-file zz_generated.model_name.go \
	--readonly-pkg k8s.io/apimachinery/pkg/api/resource,k8s.io/apimachinery/pkg/apis/meta/v1,k8s.io/apimachinery/pkg/runtime,k8s.io/apimachinery/pkg/version \
	--report-filename /dev/null \
	./api/v1alpha1 \
	k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/apis/meta/v1 \
	k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version
