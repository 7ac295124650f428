package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
)

// lookupAll prints what is known of names, all at once: of host/NAME the addresses, of srv/NAME where it is served, of
// cname/NAME what it is called in full, and of addr/ADDRESS its names. A dash is what does not exist, and an error no answer.
func lookupAll(ctx context.Context, out io.Writer, resolver *net.Resolver, targets []string) error {
	answers := make([]string, len(targets))
	var group sync.WaitGroup
	for i, target := range targets {
		group.Go(func() {
			found, err := lookup(ctx, resolver, target)
			slices.Sort(found)
			var problem *net.DNSError
			switch {
			case errors.As(err, &problem) && problem.IsNotFound:
				answers[i] = "-"
			case err != nil:
				answers[i] = "error: " + err.Error()
			default:
				answers[i] = strings.Join(slices.Compact(found), ",")
			}
		})
	}
	group.Wait()
	for i, target := range targets {
		if _, err := fmt.Fprintln(out, target, cmp.Or(answers[i], "-")); err != nil {
			return err
		}
	}
	return nil
}

func lookup(ctx context.Context, resolver *net.Resolver, target string) ([]string, error) {
	kind, name, _ := strings.Cut(target, "/")
	switch kind {
	case "host":
		return resolver.LookupHost(ctx, name)
	case "srv":
		_, records, err := resolver.LookupSRV(ctx, "", "", name)
		var found []string
		for _, r := range records {
			found = append(found, fmt.Sprintf("%s:%d", r.Target, r.Port))
		}
		return found, err
	case "cname":
		full, err := resolver.LookupCNAME(ctx, name)
		return []string{full}, err
	case "addr":
		return resolver.LookupAddr(ctx, name)
	}
	return nil, fmt.Errorf("%s is none of host/NAME, srv/NAME, cname/NAME and addr/ADDRESS", target)
}
