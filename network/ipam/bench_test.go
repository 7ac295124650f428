package ipam

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkAllocate gives out 10,000 addresses of one subnet to 256 callers at once, as the controller has, and writes
// every block in the form that the admin API takes it. "addresses/cpu-s" is what a second of processor time buys, for
// the allocator and the store's side together.
func BenchmarkAllocate(b *testing.B) {
	const pods, callers = 10_000, 256
	b.ReportAllocs()
	before, writes := cpu(b), 0
	for range b.N {
		store := newMemory()
		a := opened(b, store, time.Now, testSubnet("10.0.0.0/16", "fd00:1::/64"))
		requests := make(chan Request)
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for r := range requests {
					if _, err := a.Allocate(context.Background(), "s1", r); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for i := range pods {
			requests <- pod(fmt.Sprintf("web-6d4cf56db6-%05d", i))
		}
		close(requests)
		group.Wait()
		writes += store.writes
	}
	b.ReportMetric(float64(pods*b.N)/(cpu(b)-before).Seconds(), "addresses/cpu-s")
	b.ReportMetric(float64(writes)/float64(b.N), "writes/op")
}

// cpu is the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
