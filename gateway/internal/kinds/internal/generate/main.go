// Command generate writes docs/kinds.md out of the table of kinds.
package main

import (
	"fmt"
	"os"

	"vivarium.io/vivarium/gateway/internal/kinds"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], []byte(kinds.Document()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
