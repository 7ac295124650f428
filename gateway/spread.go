package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// A list that begins at the tenant's first key costs the control cluster something for every object behind that key,
// whosever it is: its cache gathers all of them before it looks at the limit. Where there are many, it is cheaper to list
// the tenant's namespaces one by one, all at one revision: then the others cost nothing (ADR 17).

const (
	// keysPerRequest is how many objects cost the control cluster as much as one more request does.
	keysPerRequest = 5000
	// maxSpread is how many namespaces are listed one by one at most, spreadAhead how many at once.
	maxSpread   = 64
	spreadAhead = 8
	// firstNamespaces is how many namespaces are asked for while it is not known how many there are.
	firstNamespaces = 16
)

// spreadPays reports whether it is cheaper to list some namespaces one by one than all objects behind the tenant's first.
func spreadPays(namespaces, behind int) bool {
	return namespaces > 0 && namespaces <= maxSpread && behind > keysPerRequest*(namespaces+1)
}

// spread reads a list over all namespaces namespace by namespace.
type spread struct {
	*exchange
	ctx        context.Context //nolint:containedctx // of the requests that are under way; ended by close
	cancel     context.CancelFunc
	call       control.Call
	query      url.Values
	limit      int
	revision   string
	namespaces []names.ControlNamespace
	// ahead are the answers to come, by namespace; nil if it has not been asked, or its answer was taken.
	ahead []chan answered
}

type answered struct {
	res *http.Response
	err error
}

// newSpread prepares one at a revision, or gives nil where it would not pay or cannot be known to be what the tenant may see.
func (x *exchange) newSpread(ctx context.Context, call control.Call, query url.Values, limit int, revision int64) *spread {
	if x.kind.Confined != kinds.ByNamespace || x.kind.Custom != nil && !x.kind.Custom.Shared {
		// Of a custom kind of the tenant's own there are only its own objects.
		return nil
	}
	behind, known := x.behind()
	if !known && (query.Get("labelSelector") != "" || query.Get("fieldSelector") != "") {
		// With a selector the control cluster does not say how many there are, and looks at each of them.
		behind = x.probe(ctx, call)
	}
	count, known := x.front.sizes.recent(x.namespacesKey())
	if !known {
		count = 1
	}
	if !spreadPays(count, behind) {
		return nil
	}
	s := &spread{exchange: x, call: call, query: query, limit: limit}
	var allowed bool
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		s.namespaces, s.revision, err = x.namespacesAt(groupCtx, revision)
		return err
	})
	group.Go(func() (err error) {
		// Whoever may not list everything is told so by the control cluster, in its own words.
		allowed, err = x.front.access.everywhere(groupCtx, &x.facts.identity, "list", x.kind.Group, x.facts.request.Version, x.kind.Resource)
		return err
	})
	if err := group.Wait(); err != nil {
		boot.Logger(ctx).Info("A list is not read by namespaces", "tenant", x.facts.tenant.ID, "resource", x.kind.Resource, "error", err.Error())
		return nil
	}
	if !allowed || !spreadPays(len(s.namespaces), behind) {
		return nil
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.ahead = make([]chan answered, len(s.namespaces))
	for i := range min(spreadAhead, len(s.namespaces)) {
		s.ask(i)
	}
	return s
}

// behind is how many objects there are behind the tenant's first: what the tenant's last list told, or else somebody's.
func (x *exchange) behind() (int, bool) {
	for _, key := range x.behindKeys() {
		if seen, ok := x.front.sizes.recent(key); ok {
			return seen, true
		}
	}
	return 0, false
}

func (x *exchange) behindKeys() [2]sizeKey {
	return [2]sizeKey{
		{about: behindIt, tenant: x.facts.tenant.UID, group: x.kind.Group, resource: x.kind.Resource},
		{about: behindIt, group: x.kind.Group, resource: x.kind.Resource},
	}
}

// learnBehind remembers it.
func (x *exchange) learnBehind(behind int) {
	for _, key := range x.behindKeys() {
		x.front.sizes.put(key, behind)
	}
}

// probe asks for it.
func (x *exchange) probe(ctx context.Context, call control.Call) int {
	call.Query = url.Values{"limit": {"1"}, "continue": {paging.Start(x.facts.tenant.ID, paging.Latest)}}
	call.Header = control.Headers(http.Header{}, metadataList, "")
	res, err := x.front.control.Do(ctx, call)
	if err != nil {
		return 0
	}
	list, err := readMetadata(res)
	if err != nil {
		return 0
	}
	behind := len(list.Items)
	if list.RemainingItemCount != nil {
		behind += int(*list.RemainingItemCount)
	}
	x.learnBehind(behind)
	return behind
}

// metadataList is what is asked for where names are enough.
const metadataList = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

// readMetadata reads an answer to that, to its end.
func readMetadata(res *http.Response) (list metav1.PartialObjectMetadataList, err error) {
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return list, fmt.Errorf("read a list: %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return list, fmt.Errorf("read a list: %w", err)
	}
	return list, nil
}

func (x *exchange) namespacesKey() sizeKey {
	return sizeKey{about: itsNamespaces, tenant: x.facts.tenant.UID}
}

// namespacesAt gives the tenant's namespaces at a revision in the order of their objects' keys, and the revision at which
// there were these. It asks as the gateway itself: who may list Pods need not be allowed to list namespaces.
func (x *exchange) namespacesAt(ctx context.Context, revision int64) ([]names.ControlNamespace, string, error) {
	limit := firstNamespaces
	if known, ok := x.front.sizes.recent(x.namespacesKey()); ok {
		limit = min(known+spare, maxSpread+1)
	}
	res, err := x.front.control.Stream(ctx, "/api/v1/namespaces", url.Values{
		"limit": {strconv.Itoa(limit)}, "continue": {paging.Start(x.facts.tenant.ID, revision)},
	}, metadataList)
	if err != nil {
		return nil, "", err
	}
	list, err := readMetadata(res)
	if err != nil {
		return nil, "", fmt.Errorf("list namespaces as the gateway: %w", err)
	}
	var out []names.ControlNamespace
	for i := range list.Items {
		if !x.facts.tenant.ID.Owns(list.Items[i].Name) {
			break
		}
		out = append(out, names.ControlNamespace(list.Items[i].Name))
	}
	count := len(out)
	if count == len(list.Items) && list.Continue != "" {
		// There are more than was asked for; next time it is known.
		count *= 2
		out = nil
	}
	x.front.sizes.put(x.namespacesKey(), count)
	// A key has a slash behind the namespace, which comes after the hyphen of a longer one.
	slices.SortFunc(out, func(a, b names.ControlNamespace) int { return strings.Compare(string(a)+"/", string(b)+"/") })
	return out, list.ResourceVersion, nil
}

// request asks for a page of a namespace.
func (s *spread) request(i int, token string, limit int, header http.Header) (*http.Response, error) {
	one := s.call
	one.Header = header
	one.Query = maps.Clone(s.query)
	one.Query.Set("limit", strconv.Itoa(limit))
	if token == "" {
		one.Query.Del("continue")
		one.Query.Set("resourceVersion", s.revision)
		one.Query.Set("resourceVersionMatch", "Exact")
	} else {
		one.Query.Set("continue", token)
	}
	at := strings.LastIndexByte(one.Path, '/')
	one.Path = one.Path[:at] + "/namespaces/" + string(s.namespaces[i]) + one.Path[at:]
	return s.front.control.Do(s.ctx, one)
}

// ask asks for the first page of a namespace ahead of time.
func (s *spread) ask(i int) {
	answer := make(chan answered, 1)
	s.ahead[i] = answer
	go func() {
		res, err := s.request(i, "", s.limit, s.call.Header.Clone())
		answer <- answered{res, err}
	}()
}

// The tokens of a spread are a namespace's number and the control cluster's token for that namespace.

func spreadToken(i int, token string) string { return strconv.Itoa(i) + "/" + token }

func parseSpread(token string) (i int, rest string) {
	number, rest, _ := strings.Cut(token, "/")
	i, _ = strconv.Atoi(number)
	return i, rest
}

// first is the token of the first page.
func (s *spread) first() string { return spreadToken(0, "") }

// page gives a page; one that was had before is asked for again.
func (s *spread) page(token string) (*http.Response, error) {
	i, rest := parseSpread(token)
	if rest != "" || s.ahead[i] == nil {
		return s.request(i, rest, s.limit, s.call.Header.Clone())
	}
	answer := <-s.ahead[i]
	s.ahead[i] = nil
	if next := i + spreadAhead; next < len(s.namespaces) {
		s.ask(next)
	}
	return answer.res, answer.err
}

// next says what comes behind a page: the rest of its namespace, then the next one.
func (s *spread) next(read, token string) (next string, more bool) {
	i, _ := parseSpread(read)
	if token != "" {
		return spreadToken(i, token), true
	}
	if i+1 == len(s.namespaces) {
		return "", false
	}
	return spreadToken(i+1, ""), true
}

// cut gives the token of the control cluster behind some items of a page, for a list over all namespaces.
func (s *spread) cut(read string, items int) (string, error) {
	i, token := parseSpread(read)
	switch {
	case items == 0 && token == "":
		return paging.At(s.namespaces[i], s.revision)
	case items == 0:
		return paging.Widen(s.namespaces[i], token)
	}
	// Where the last item is, the control cluster's own token tells.
	res, err := s.request(i, token, items, control.Headers(http.Header{}, metadataList, ""))
	if res, err = s.document(s.ctx, res, err); err != nil {
		return "", err
	}
	list, err := readMetadata(res)
	if err != nil {
		return "", err
	}
	return paging.Widen(s.namespaces[i], list.Continue)
}

// close ends the requests whose answers nobody took.
func (s *spread) close() {
	s.cancel()
	for _, answer := range s.ahead {
		if answer == nil {
			continue
		}
		go func() {
			if one := <-answer; one.err == nil {
				_ = one.res.Body.Close()
			}
		}()
	}
}
