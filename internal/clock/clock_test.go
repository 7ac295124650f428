package clock

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	begin := time.Date(2026, 11, 20, 12, 0, 0, 400e6, time.UTC)
	for name, tc := range map[string]struct {
		was  time.Duration
		date string
		took time.Duration
		want time.Duration
	}{
		"Agrees":      {0, "Fri, 20 Nov 2026 12:00:00 GMT", 100 * time.Millisecond, 0},
		"AgreesAgain": {5 * time.Minute, "Fri, 20 Nov 2026 12:00:00 GMT", 100 * time.Millisecond, 0},
		"Late":        {0, "Fri, 20 Nov 2026 12:00:02 GMT", 2 * time.Second, 0},
		"Ahead":       {0, "Fri, 20 Nov 2026 12:05:00 GMT", 100 * time.Millisecond, 5*time.Minute - 400*time.Millisecond},
		"Behind":      {0, "Fri, 20 Nov 2026 11:55:00 GMT", 100 * time.Millisecond, -5*time.Minute - 400*time.Millisecond},
		"StaysAhead":  {5 * time.Minute, "Fri, 20 Nov 2026 12:05:01 GMT", 100 * time.Millisecond, 5 * time.Minute},
		"TooSlow":     {time.Minute, "Fri, 20 Nov 2026 12:05:00 GMT", 10 * time.Second, time.Minute},
		"Untold":      {time.Minute, "", 0, time.Minute},
		"Nonsense":    {time.Minute, "soon", 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var c Clock
			c.ahead.Store(int64(tc.was))
			c.read(tc.date, begin, begin.Add(tc.took))
			if got := time.Duration(c.ahead.Load()); got != tc.want {
				t.Errorf("ahead by %s, want %s", got, tc.want)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-5*time.Minute).UTC().Format(http.TimeFormat))
	}))
	defer server.Close()
	var c Clock
	client := &http.Client{Transport: c.Wrap(http.DefaultTransport)}
	response, err := client.Get(server.URL) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if off := time.Since(c.Now()) - 5*time.Minute; off.Abs() > 2*agreed {
		t.Errorf("the clock is off by %s", off)
	}
	if c.Since(c.Now().Add(time.Hour)) != 0 {
		t.Error("something that has yet to come was long ago")
	}
	if since := c.Since(c.Now().Add(-time.Minute)); since < time.Minute || since > 2*time.Minute {
		t.Errorf("a minute ago was %s ago", since)
	}
}
