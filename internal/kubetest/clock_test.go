package kubetest_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"vivarium.io/vivarium/internal/kubetest"
)

// TestMain lets the test's own program be the one whose clock is shifted: it says the time for each line that it reads, and
// how long it has run by a clock that only counts.
func TestMain(m *testing.M) {
	if os.Getenv("TELL_TIME") == "" {
		os.Exit(m.Run())
	}
	begin := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().Unix(), int64(time.Since(begin).Seconds()))
	}
}

func TestShiftClock(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TELL_TIME=yes")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	for _, by := range []time.Duration{5 * time.Minute, -5 * time.Minute, 0} {
		if err := kubetest.ShiftClock(cmd.Process.Pid, by); errors.Is(err, kubetest.ErrOneClock) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		before := time.Now().Unix()
		fmt.Fprintln(in)
		var at, ran int64
		if _, err := fmt.Fscanln(out, &at, &ran); err != nil {
			t.Fatal(err)
		}
		at -= int64(by.Seconds())
		if after := time.Now().Unix(); at < before || at > after {
			t.Errorf("clock by %s: it is %d, between %d and %d", by, at, before, after)
		}
		if ran > 60 {
			t.Errorf("clock by %s: it has run for %d s", by, ran)
		}
	}
}
