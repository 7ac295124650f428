package flows

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is what is served and stored.
var GroupVersion = flowcontrolv1.SchemeGroupVersion

// AddToScheme adds the published types.
func AddToScheme(scheme *runtime.Scheme) error { return flowcontrolv1.AddToScheme(scheme) }

// AddInternal makes the published types the internal version too, and says what is filled in where nothing was said.
func AddInternal(scheme *runtime.Scheme) {
	internal := schema.GroupVersion{Group: GroupVersion.Group, Version: runtime.APIVersionInternal}
	scheme.AddKnownTypes(internal,
		&flowcontrolv1.FlowSchema{}, &flowcontrolv1.FlowSchemaList{},
		&flowcontrolv1.PriorityLevelConfiguration{}, &flowcontrolv1.PriorityLevelConfigurationList{},
	)
	scheme.AddTypeDefaultingFunc(&flowcontrolv1.FlowSchema{}, func(obj any) { defaultSchema(obj.(*flowcontrolv1.FlowSchema)) })
	scheme.AddTypeDefaultingFunc(&flowcontrolv1.PriorityLevelConfiguration{}, func(obj any) {
		defaultLevel(obj.(*flowcontrolv1.PriorityLevelConfiguration))
	})
}

func defaultSchema(s *flowcontrolv1.FlowSchema) {
	orElse(&s.Spec.MatchingPrecedence, 1000)
}

func defaultLevel(l *flowcontrolv1.PriorityLevelConfiguration) {
	if exempt := l.Spec.Exempt; exempt != nil {
		given(&exempt.NominalConcurrencyShares, 0)
		given(&exempt.LendablePercent, 0)
	}
	if limited := l.Spec.Limited; limited != nil {
		given(&limited.NominalConcurrencyShares, 30)
		given(&limited.LendablePercent, 0)
		if queuing := limited.LimitResponse.Queuing; queuing != nil {
			orElse(&queuing.Queues, 64)
			orElse(&queuing.HandSize, 8)
			orElse(&queuing.QueueLengthLimit, 50)
		}
	}
}

func orElse(n *int32, otherwise int32) {
	if *n == 0 {
		*n = otherwise
	}
}

func given(n **int32, otherwise int32) {
	if *n == nil {
		*n = &otherwise
	}
}
