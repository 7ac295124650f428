package kinds

import (
	"iter"
	"maps"
)

// All gives every kind that somebody decided about, in no order.
func (t *Table) All() iter.Seq[*Kind] { return maps.Values(t.kinds) }
