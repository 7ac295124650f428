package localcluster

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vivarium.io/vivarium/internal/localcluster/node"
)

// ErrSimulated says that nodes run no containers and so hold no images.
var ErrSimulated = errors.New("the nodes are simulated and hold no images")

// Load brings the images of archives, OCI or Docker, into every node of the instance.
func (i *Instance) Load(ctx context.Context, archives []string, progress *Progress) error {
	if i.current().Nodes == NodesKwok {
		return fmt.Errorf("load images: %w", ErrSimulated)
	}
	for _, archive := range archives {
		if err := checkArchive(archive); err != nil {
			return fmt.Errorf("load images: %w", err)
		}
	}
	nodes := i.nodes()
	if len(nodes) == 0 {
		return errors.New("load images: no node is running; start them with `vivarium up`")
	}
	runtime, missing := node.FindRuntime()
	if len(missing) > 0 {
		return fmt.Errorf("load images: this machine lacks %s", strings.Join(missing, ", "))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("waited 10 minutes"))
	defer cancel()
	for _, archive := range archives {
		for _, id := range slices.Sorted(maps.Keys(nodes)) {
			names, err := node.Import(ctx, nodes[id].ID(), runtime, i.path("nodes", id), archive)
			if err != nil {
				return fmt.Errorf("node %s: %w", id, err)
			}
			if len(names) == 0 {
				return fmt.Errorf("%s names no image; save it under a name with a tag", filepath.Base(archive))
			}
			progress.Say("%s: %s", id, strings.Join(names, ", "))
		}
	}
	return nil
}

// checkArchive refuses what cannot be an archive of images, packed or not.
func checkArchive(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	unpacked, err := node.Unpack(f)
	if err == nil {
		_, err = tar.NewReader(unpacked).Next()
	}
	if err != nil {
		return fmt.Errorf("%s is no archive of images (%w); make one with `docker save` or `docker buildx build --output type=oci`", path, err)
	}
	return nil
}
