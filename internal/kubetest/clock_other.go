//go:build !(linux && amd64)

package kubetest

import "time"

// ShiftClock has a running process believe that it is earlier or later than it is. Only Linux on amd64 can.
func ShiftClock(int, time.Duration) error { return ErrOneClock }
