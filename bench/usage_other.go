//go:build !linux

package main

import (
	"errors"
	"time"
)

var errNoProc = errors.New("what a process uses can be read on Linux alone")

func cpu(int) (time.Duration, error)    { return 0, errNoProc }
func memory(int, string) (int64, error) { return 0, errNoProc }
func resetPeak(int) error               { return errNoProc }
func processor() string                 { return "unknown" }

func priority() string { return "" }
