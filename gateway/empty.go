package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/frames"
)

const (
	// emptyVersion is the resource version of a collection that never changes.
	emptyVersion = 1
	// emptyWatch is how long a watch of nothing stays open if its client does not say.
	emptyWatch = 30 * time.Minute
)

// empty answers for a kind of which no tenant has any: an empty list, a silent watch, and not found.
func (x *exchange) empty(w http.ResponseWriter, r *http.Request) error {
	request := x.facts.request
	accept, err := control.Accept(r.Header.Values("Accept"), control.JSON)
	if err != nil {
		return err
	}
	// Parameters are read as for any other kind.
	if _, err := x.query(request.Verb); err != nil {
		return err
	}
	if err := x.authorize(r.Context(), request.Verb); err != nil {
		return err
	}
	switch {
	case request.Name != "":
		return apierrors.NewNotFound(request.GroupResource(), request.Name)
	case request.Verb == "watch":
		return x.watchNothing(w, r)
	}
	raw, err := json.Marshal(x.nothing(accept))
	if err != nil {
		return fmt.Errorf("write an empty list: %w", err)
	}
	return x.replyJSON(w, r, raw)
}

// nothing is an empty list in the form that a client likes best.
func (x *exchange) nothing(accept string) any {
	meta := metav1.ListMeta{ResourceVersion: strconv.Itoa(emptyVersion)}
	first, _, _ := strings.Cut(accept, ",")
	version := "meta.k8s.io/v1"
	if strings.Contains(first, "v=v1beta1") {
		version = "meta.k8s.io/v1beta1"
	}
	switch {
	case strings.Contains(first, "as=Table"):
		return metav1.Table{
			TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: version}, ListMeta: meta,
			ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name"}}, Rows: []metav1.TableRow{},
		}
	case strings.Contains(first, "as=PartialObjectMetadata"):
		return metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: version}, ListMeta: meta, Items: []metav1.PartialObjectMetadata{},
		}
	}
	return metav1.List{TypeMeta: metav1.TypeMeta{Kind: x.kind.Kind + "List", APIVersion: x.groupVersion()}, ListMeta: meta, Items: []runtime.RawExtension{}}
}

func (x *exchange) groupVersion() string {
	if x.kind.Group == "" {
		return x.facts.request.Version
	}
	return x.kind.Group + "/" + x.facts.request.Version
}

// watchNothing stays open and says no more than that all there is has been sent.
func (x *exchange) watchNothing(w http.ResponseWriter, r *http.Request) error {
	timeout := emptyWatch
	if seconds, err := strconv.Atoi(x.facts.request.Query.Get("timeoutSeconds")); err == nil && seconds > 0 {
		timeout = min(timeout, time.Duration(seconds)*time.Second)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	out := newLive(w)
	if initial, err := strconv.ParseBool(x.facts.request.Query.Get("sendInitialEvents")); err == nil && initial {
		form := frames.Form{APIVersion: x.groupVersion(), Kind: x.kind.Kind}
		if _, err := out.Write(form.Bookmark(emptyVersion, true)); err != nil {
			return nil
		}
	}
	if out.Flush() != nil {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
	case <-timer.C:
	}
	return nil
}
