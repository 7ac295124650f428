package tenants

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
)

// A tenant's weight in the control cluster. The gateway's own limits are the main wall between tenants; this is what holds
// when a tenant stays inside its limits and the control cluster is short of capacity all the same.
//
// Each of the first tenants gets a priority level of its own. Every level takes seats from the control cluster's own
// controllers, whether it is used or not, so beyond that tenants share a few levels by weight, where each tenant is one
// flow among the others. A tenant keeps what it got first: levels that come and go leave metrics behind in the API server
// until it restarts.
const (
	// ownLevels is how many tenants get a level of their own: with the default weight they then have half of the server's
	// seats together.
	ownLevels = 50
	// weightPerShare turns a weight into concurrency shares. The levels that every API server comes with have 245.
	weightPerShare = 2
	// flowPrecedence lies behind the control cluster's own components and before the schemas that catch the rest.
	flowPrecedence = 1000
	// lendable is the part of its seats, in percent, that a level lends while it does not need them; a tenant's level never
	// borrows, or a noisy tenant would take what the others lend.
	lendable = 75
)

// flowName is the tenant's name of its FlowSchema and of its own level.
const flowName = "tenant-requests"

// tier is a level that tenants share.
type tier struct {
	name   string
	shares int32
	// below is the weight at which the next tier begins.
	below int32
}

func tiers() []tier {
	return []tier{
		{name: "vivarium-tier-low", shares: 20, below: 10},
		{name: "vivarium-tier-medium", shares: 60, below: 50},
		{name: "vivarium-tier-high", shares: 120, below: 101},
	}
}

// tierOf gives the tier of a weight.
func tierOf(weight int32) tier {
	all := tiers()
	for _, t := range all {
		if weight < t.below {
			return t
		}
	}
	return all[len(all)-1]
}

func ownLevel(id names.TenantID, weight int32) *flowcontrolv1.PriorityLevelConfiguration {
	// Rounded up: the smallest weight is a share too.
	shares := (weight + weightPerShare - 1) / weightPerShare
	// One tenant's requests spread over a few queues, so that one of its clients cannot stop the others.
	level := levelOf(id.NameToControl(flowName), shares, flowcontrolv1.QueuingConfiguration{Queues: 8, HandSize: 3, QueueLengthLimit: 25})
	level.Labels = tenantLabels(id)
	return level
}

func (t tier) level() *flowcontrolv1.PriorityLevelConfiguration {
	return levelOf(t.name, t.shares, flowcontrolv1.QueuingConfiguration{Queues: 128, HandSize: 6, QueueLengthLimit: 50})
}

func levelOf(name string, shares int32, queuing flowcontrolv1.QueuingConfiguration) *flowcontrolv1.PriorityLevelConfiguration {
	lend, borrow := int32(lendable), int32(0)
	return &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: &shares,
				LendablePercent:          &lend,
				BorrowingLimitPercent:    &borrow,
				LimitResponse:            flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue, Queuing: &queuing},
			},
		},
	}
}

// flowSchema sends the tenant's requests to a level. It knows them by the group that the gateway gives to every one.
func flowSchema(id names.TenantID, level string) *flowcontrolv1.FlowSchema {
	all := []string{"*"}
	schema := &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: id.NameToControl(flowName), Labels: tenantLabels(id)},
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
			MatchingPrecedence:         flowPrecedence,
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects: []flowcontrolv1.Subject{{
					Kind:  flowcontrolv1.SubjectKindGroup,
					Group: &flowcontrolv1.GroupSubject{Name: id.UserGroupToControl(authenticatedGroup)},
				}},
				ResourceRules:    []flowcontrolv1.ResourcePolicyRule{{Verbs: all, APIGroups: all, Resources: all, Namespaces: all, ClusterScope: true}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: all, NonResourceURLs: all}},
			}},
		},
	}
	if level == id.NameToControl(flowName) {
		// In a level of its own the tenant's users are told apart; in a shared one the tenant is a single flow, so that
		// having many users gives it no more.
		schema.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType}
	}
	return schema
}
