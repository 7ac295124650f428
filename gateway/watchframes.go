package gateway

import (
	"errors"
	"net/http"

	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/translate"
)

// begin sends the headers, once: those with which the control cluster answered.
func (s *shared) begin(h http.Header) error {
	if s.out != nil {
		return nil
	}
	h = h.Clone()
	// It is another request's.
	h.Del("Audit-Id")
	s.copyHeaders(s.w.Header(), &http.Response{Header: h})
	s.w.Header().Set("Content-Type", h.Get("Content-Type"))
	s.w.WriteHeader(http.StatusOK)
	s.out = newLive(s.w)
	return s.out.Flush()
}

// toTenant translates a frame for this tenant; what is not the tenant's becomes nothing.
func (s *shared) toTenant(frame []byte) ([]byte, error) {
	return s.appendTenant(make([]byte, 0, len(frame)), frame)
}

func (s *shared) appendTenant(dst, frame []byte) (out []byte, err error) {
	// What comes of it is for all the tenant's watches, however long this one is open: groups may have been shared since.
	has := s.front.customs.Of(s.facts.tenant.ID)
	s.view.Customs, s.view.SharedGroups = has, has.SharedGroups()
	if s.table == nil || s.table.columns == nil {
		// An error may come before any Table; a Table without columns is refused.
		out, err = s.view.FrameToTenant(s.translated, dst, frame)
	} else {
		out, err = s.view.TableFrameToTenant(s.translated, dst, frame, s.table.columns, !s.table.defined)
		s.table.defined = s.table.defined || err == nil
	}
	if errors.Is(err, translate.ErrForeignItem) {
		return dst, nil
	}
	return out, err
}

// table is what a watch of Tables has to remember.
type table struct {
	// head is the frame that names the columns.
	head    []byte
	columns *translate.Columns
	// defined says that the client has been told.
	defined bool
}

// read remembers the columns that a frame names.
func (t *table) read(kind translate.Kind, head []byte) (err error) {
	if len(t.head) == len(head) && len(head) > 0 && &t.head[0] == &head[0] {
		return nil
	}
	t.head = head
	t.columns, err = translate.ColumnsOfFrame(kind, head)
	return err
}

// frame translates an event; all clients of the tenant share what comes of it, save for the first frame of a Table.
func (s *shared) frame(event *fanout.Event) ([]byte, error) {
	if s.table == nil {
		return event.Tenant(s.toTenant)
	}
	raw, head := event.Table()
	if err := s.table.read(s.translated, head); err != nil {
		return nil, err
	}
	if !s.table.defined {
		return s.toTenant(raw)
	}
	return event.Tenant(s.toTenant)
}
