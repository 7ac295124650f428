//go:build !linux

package main

import "errors"

func sendFrames(string, []string) error { return errors.New("frames can only be sent on Linux") }
