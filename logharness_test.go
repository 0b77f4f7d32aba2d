package main

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
)

// captureLog has what is logged go to where the test sees it. Such a test cannot
// be parallel.
func captureLog(t *testing.T) *logCapture {
	t.Helper()
	log, before := new(logCapture), slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return log
}

// logCapture is what was logged so far.
type logCapture struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logCapture) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logCapture) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
