package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Nodes need a few of the host kernel's settings to be different from what some machines have. What they were is noted in
// the alias of the instance's bridge, because that lives exactly as long as the need: when the last bridge goes, the host
// gets its settings back.

// setting is one that has to be at least a number.
type setting struct {
	name    string
	atLeast int
}

var settings = []setting{
	// Packets of nodes and pods pass through the host.
	{"net/ipv4/ip_forward", 1},
	// API servers, kubelets and containerd watch files, each a few; many machines allow a user 128 in all.
	{"fs/inotify/max_user_instances", 8192},
	{"fs/inotify/max_user_watches", 524288},
}

// aliasPrefix marks an alias as a note of ours. What follows are settings as name=value, separated by spaces.
const aliasPrefix = "vivarium before:"

// borrow changes the settings that have to be, after noting what they were, and says what it changed.
func borrow(bridge netlink.Link) (changed []string, err error) {
	before := noted(bridge)
	need := map[string]int{}
	for _, s := range settings {
		now, err := readSetting(s.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if now < s.atLeast {
			need[s.name] = s.atLeast
			before[s.name] = now
		}
	}
	if len(need) == 0 {
		return nil, nil
	}
	if err := note(bridge, before); err != nil {
		return nil, err
	}
	for name, value := range need {
		if err := writeSetting(name, value); err != nil {
			return changed, err
		}
		changed = append(changed, fmt.Sprintf("%s is %d instead of %d until the last instance goes", name, value, before[name]))
	}
	return changed, nil
}

// giveBack restores the settings that were changed for the bridge, or leaves that to another instance's bridge, which
// needs them still.
func giveBack(bridge netlink.Link, links []netlink.Link, isSibling func(string) bool) error {
	before := noted(bridge)
	if len(before) == 0 {
		return nil
	}
	for _, link := range links {
		if link.Type() == "bridge" && link.Attrs().Index != bridge.Attrs().Index && isSibling(link.Attrs().Name) {
			for name, value := range noted(link) {
				before[name] = value
			}
			return note(link, before)
		}
	}
	var errs []error
	for _, s := range settings {
		value, ok := before[s.name]
		if !ok {
			continue
		}
		// Whoever has changed it since knows better.
		if now, err := readSetting(s.name); err == nil && now == s.atLeast {
			errs = append(errs, writeSetting(s.name, value))
		}
	}
	return errors.Join(errs...)
}

func noted(bridge netlink.Link) map[string]int {
	before := map[string]int{}
	text, ok := strings.CutPrefix(bridge.Attrs().Alias, aliasPrefix)
	if !ok {
		return before
	}
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		if number, err := strconv.Atoi(value); err == nil {
			before[name] = number
		}
	}
	return before
}

func note(bridge netlink.Link, before map[string]int) error {
	var fields []string
	for name, value := range before {
		fields = append(fields, fmt.Sprintf("%s=%d", name, value))
	}
	slices.Sort(fields)
	if err := netlink.LinkSetAlias(bridge, aliasPrefix+" "+strings.Join(fields, " ")); err != nil {
		return fmt.Errorf("note the host's settings: %w", err)
	}
	return nil
}

func readSetting(name string) (int, error) {
	raw, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return 0, fmt.Errorf("read the host's setting: %w", err)
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("read the host's setting %s: %w", name, err)
	}
	return value, nil
}

func writeSetting(name string, value int) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(strconv.Itoa(value)), 0o644); err != nil {
		return fmt.Errorf("change the host's setting: %w", err)
	}
	return nil
}
