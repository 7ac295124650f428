package discovery

import (
	"encoding/json"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"

	"vivarium.io/vivarium/internal/names"
)

// The documents of custom kinds are made here, by the API server's own builder, of definitions in the tenant's names. What
// the control cluster publishes would have to be searched for the names of all tenants, and comes seconds late.

// customV3 makes the document of one version of a group.
func customV3(crds []*apiextensionsv1.CustomResourceDefinition, version string) (*openAPI, error) {
	var specs []*spec3.OpenAPI
	for _, crd := range crds {
		if !serves(crd, version) {
			continue
		}
		one, err := builder.BuildOpenAPIV3(crd, version, builder.Options{V2: false, IncludeSelectableFields: true})
		if err != nil {
			return nil, fmt.Errorf("make OpenAPI v3 of %s: %w", crd.Name, err)
		}
		specs = append(specs, one)
	}
	merged, err := builder.MergeSpecsV3(specs...)
	if err != nil {
		return nil, fmt.Errorf("make OpenAPI v3: %w", err)
	}
	raw, err := json.Marshal(merged)
	if err != nil {
		return nil, fmt.Errorf("write OpenAPI v3: %w", err)
	}
	return newOpenAPI(raw, protoV3, handler3.ToV3ProtoBinary), nil
}

// customV2 adds what definitions define to the document of the built-in kinds, whose definitions go first.
func customV2(base *openAPI, crds []*apiextensionsv1.CustomResourceDefinition) (*openAPI, error) {
	more := map[string]map[string]json.RawMessage{"paths": {}, "definitions": {}, "parameters": {}}
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			one, err := builder.BuildOpenAPIV2(crd, v.Name, builder.Options{V2: true, IncludeSelectableFields: true})
			if err != nil {
				return nil, fmt.Errorf("make OpenAPI v2 of %s: %w", crd.Name, err)
			}
			raw, err := json.Marshal(one)
			if err != nil {
				return nil, fmt.Errorf("write OpenAPI v2: %w", err)
			}
			var document map[string]json.RawMessage
			if err := json.Unmarshal(raw, &document); err != nil {
				return nil, fmt.Errorf("read OpenAPI v2: %w", err)
			}
			for part, into := range more {
				if len(document[part]) == 0 {
					continue
				}
				if err := json.Unmarshal(document[part], &into); err != nil {
					return nil, fmt.Errorf("read OpenAPI v2: %s: %w", part, err)
				}
			}
		}
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(base.json, &document); err != nil {
		return nil, fmt.Errorf("read OpenAPI v2: %w", err)
	}
	for part, members := range more {
		var err error
		if document[part], err = mergeObject(document[part], members); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("write OpenAPI v2: %w", err)
	}
	return newOpenAPI(raw, protoV2, handler.ToProtoBinary), nil
}

func serves(crd *apiextensionsv1.CustomResourceDefinition, version string) bool {
	for _, v := range crd.Spec.Versions {
		if v.Name == version {
			return v.Served
		}
	}
	return false
}

// documentKey names a document of a tenant.
type documentKey struct {
	tenant         names.TenantID
	group, version string
}

// documents keeps the last documents that were made, each with what it was made of.
type documents struct {
	cache *lru.Cache[documentKey, madeDocument]
}

type madeDocument struct {
	of       string
	document *openAPI
}

func newDocuments(most int) (documents, error) {
	cache, err := lru.New[documentKey, madeDocument](most)
	if err != nil {
		return documents{}, fmt.Errorf("remember documents: %w", err)
	}
	return documents{cache}, nil
}

func (d documents) get(key documentKey, of string) (*openAPI, bool) {
	made, ok := d.cache.Get(key)
	return made.document, ok && made.of == of
}

func (d documents) put(key documentKey, of string, document *openAPI) {
	d.cache.Add(key, madeDocument{of, document})
}
