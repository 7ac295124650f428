package console

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/boot"
)

// logs streams a container's log. virtual-kubelet's own handler is not used here: it takes "the last 0 lines" for "all"
// and knows no choice of stream.
func (s *server) logs(w http.ResponseWriter, r *http.Request, t *target) {
	options, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	options.Container = r.PathValue("container")
	log, err := t.pool.Client.CoreV1().Pods(t.below.Namespace).GetLogs(t.below.Name, options).Stream(r.Context())
	if err != nil {
		s.logsRefused(w, r, t, err)
		return
	}
	defer func() { _ = log.Close() }()
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush() // whoever follows a silent container sees that it worked
	buffer := make([]byte, 32<<10)
	for {
		n, err := log.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			if flush.Flush() != nil {
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			if r.Context().Err() == nil {
				boot.Logger(r.Context()).Info("log stream broke off", "pool", t.pool.Name, "controlNamespace", t.control.Namespace, "name", t.control.Name, "error", err)
			}
			// Ending it normally would pass half a log for a whole one.
			panic(http.ErrAbortHandler)
		}
	}
}

func (s *server) logsRefused(w http.ResponseWriter, r *http.Request, t *target, err error) {
	code, text := http.StatusServiceUnavailable, "the pool that runs the pod does not answer"
	if status, ok := err.(apierrors.APIStatus); ok { //nolint:errorlint // client-go returns it bare
		switch c := int(status.Status().Code); c {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusInternalServerError:
			code, text = c, t.say(status.Status().Message)
		}
	}
	if code == http.StatusServiceUnavailable && r.Context().Err() == nil {
		boot.Logger(r.Context()).Info("logs not available", "pool", t.pool.Name, "controlNamespace", t.control.Namespace, "name", t.control.Name, "error", err)
	}
	http.Error(w, text, code)
}

// logOptions reads the query of a kubelet's /containerLogs.
func logOptions(query url.Values) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{}
	for _, flag := range []struct {
		name string
		to   *bool
	}{{"follow", &o.Follow}, {"previous", &o.Previous}, {"timestamps", &o.Timestamps}} {
		text := query.Get(flag.name)
		if text == "" {
			continue
		}
		value, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is neither true nor false", flag.name, text)
		}
		*flag.to = value
	}
	for _, number := range []struct {
		name  string
		to    **int64
		least int64
	}{{"tailLines", &o.TailLines, 0}, {"limitBytes", &o.LimitBytes, 1}, {"sinceSeconds", &o.SinceSeconds, 1}} {
		text := query.Get(number.name)
		if text == "" {
			continue
		}
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil || value < number.least {
			return nil, fmt.Errorf("%s: %q is not a number from %d up", number.name, text, number.least)
		}
		*number.to = &value
	}
	if text := query.Get("sinceTime"); text != "" {
		value, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return nil, fmt.Errorf("sinceTime: %q is not a time", text)
		}
		if o.SinceSeconds != nil {
			return nil, fmt.Errorf("sinceTime and sinceSeconds exclude each other")
		}
		since := metav1.NewTime(value)
		o.SinceTime = &since
	}
	switch text := query.Get("stream"); text {
	case "", corev1.LogStreamAll:
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
		o.Stream = &text
	default:
		return nil, fmt.Errorf("stream: %q is not All, Stdout or Stderr", text)
	}
	return o, nil
}
