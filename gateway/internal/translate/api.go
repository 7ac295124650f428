package translate

import (
	"io"
	"net/url"
)

// ListOptions say how pages of the control cluster become one list of the tenant.
type ListOptions struct {
	// First is the control continue token of the first page; empty for the beginning.
	First string
	// OnePage ends the list after the first page, whose continue token (through View.Continue) the tenant gets: for a
	// tenant that asked with a limit. Otherwise all pages become one list without a token.
	OnePage bool
}

var errUnsupported = malformed("not translated")

// Supported reports whether there is a rule table for a kind and its subresource. Everything else must be refused.
func Supported(k Kind) bool { return false }

// BodyToControl translates the body of a request. verb is the request's: create, update, patch, delete,
// deletecollection. namespace and name are those of the tenant's URL; name is empty for a create of the resource itself.
// It returns the body to send and its content type. The error is an *Error.
func (v View) BodyToControl(k Kind, verb, contentType string, body []byte, namespace, name string) ([]byte, string, error) {
	return nil, "", errUnsupported
}

// QueryToControl translates the query parameters of a request: it rewrites field and label selectors and refuses unknown,
// repeated and malformed parameters, by verb and subresource (verbs as RequestInfo names them, plus "connect" for
// exec, attach, portforward and log). A continue token passes: the front has put the control cluster's there.
// The error is an *Error.
func (v View) QueryToControl(k Kind, verb string, query url.Values) (url.Values, error) {
	return nil, errUnsupported
}

// ObjectToTenant translates one JSON document of a response with a 2xx code: an object, a list, a Table, a
// PartialObjectMetadata or its list, a Scale, a Status. It streams in bounded memory. After an error dst holds a
// part of a document, which the front must not end cleanly; nothing has been written to dst before the first 64 KiB, so
// most errors come in time for an answer of the front's own.
func (v View) ObjectToTenant(k Kind, dst io.Writer, src io.Reader) error { return errUnsupported }

// ListToTenant makes one list out of pages of the control cluster in which the tenant's items come first and foreign ones
// may follow: it ends at the first foreign item. page is asked for each page by the control cluster's continue token,
// opts.First at first. metadata.continue is left out when the end was reached, remainingItemCount always.
// Tables need rows[].object: ask for includeObject=Metadata at least.
func (v View) ListToTenant(k Kind, dst io.Writer, opts ListOptions, page func(controlToken string) (io.ReadCloser, error)) error {
	return errUnsupported
}

// WatchToTenant translates watch frames until src ends. With filter, frames of objects that are not the tenant's are
// dropped; without it they are an error. Bookmarks and errors always pass. dst is written at most once per burst of
// frames, whole frames only, and flush (may be nil) called after each write. The error is nil only if src ended between
// two frames.
func (v View) WatchToTenant(k Kind, dst io.Writer, flush func(), src io.Reader, filter bool) error {
	return errUnsupported
}

// StatusToTenant translates the body of a response with an error code. A body that is no Status becomes one that says
// nothing but the code. It never fails.
func (v View) StatusToTenant(k Kind, code int, body []byte) []byte { return nil }

// TextToTenant takes the tenant's prefix out of text in the control cluster's words, such as a Warning header. Names the
// tenant itself used are left alone.
func (v View) TextToTenant(text string, names ...string) string { return "" }
