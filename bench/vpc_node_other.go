//go:build !linux

package main

import "errors"

func possibleVPCNode(string) (string, error) { return "", errors.New("network namespaces need Linux") }

func runVPCNode([]string) error { return errors.New("a node needs Linux") }
