package admin

import (
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// etcdLog passes the embedded etcd's errors on to our log. It goes silent before the member is closed, because etcd
// reports each listener that it closes as an error.
type etcdLog struct {
	silent atomic.Bool
}

var _ zapcore.Core = &etcdLog{}

// Enabled lets errors through and what is worse.
func (l *etcdLog) Enabled(level zapcore.Level) bool {
	return level >= zapcore.ErrorLevel && !l.silent.Load()
}

// With forgets fields: those of etcd's parts say nothing that the message does not.
func (l *etcdLog) With([]zapcore.Field) zapcore.Core { return l }

// Check adds the log to an entry that it wants.
func (l *etcdLog) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(entry.Level) {
		return checked.AddCore(entry, l)
	}
	return checked
}

// Write logs an entry.
func (l *etcdLog) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(encoder)
	}
	slog.Error("Embedded etcd", "message", entry.Message, "error", encoder.Fields["error"])
	return nil
}

// Sync has nothing to do.
func (l *etcdLog) Sync() error { return nil }
