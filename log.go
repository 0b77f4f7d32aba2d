package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// serverLog takes what is logged: it writes it to stderr or to a file and keeps
// the last lines in memory. Nobody waits for anybody else's line to be written.
type serverLog struct {
	// fixed when it is made
	stderr  io.Writer
	journal bool // stderr is the journal, which knows the time itself
	level   slog.LevelVar

	mu       sync.Mutex
	idle     sync.Cond // nobody writes
	recent   lineRing
	repeats  repeats
	timer    *time.Timer // nil: nothing is being counted
	hearers  []*hearer   // replaced when it changes, so that it can be read without mu
	queue    []logLine   // to be written
	overflow int         // lines that found the queue full
	writing  bool        // somebody writes, and has what follows to themselves

	// of whoever has set writing
	file    *logFile // nil: to stderr
	lost    int      // lines that could not be written since the last one that could
	failing bool     // the last one could not
}

// hearer is told each line.
type hearer struct{ hear func(line string) }

// longestQueue is how many lines may wait while one is being written.
const longestQueue = 1000

// newServerLog makes a log that goes to stderr until it is configured.
func newServerLog(stderr io.Writer) *serverLog {
	l := &serverLog{stderr: stderr, journal: isJournal(stderr)}
	l.idle.L = &l.mu
	return l
}

// isJournal tells whether what is written there goes to systemd's journal
// (systemd.exec(5), JOURNAL_STREAM).
func isJournal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// configure takes the settings over, at start and when they have changed.
func (l *serverLog) configure(cfg *config) {
	l.level.Set(logLevels()[cfg.Log.Level])
	l.exclusively(func() {
		l.file.close()
		l.file = newLogFile(cfg)
	})
}

// reopen lets go of the file, so that the next line goes to the one that has its
// name then: for programs that rotate logs.
func (l *serverLog) reopen() { l.exclusively(func() { l.file.close() }) }

// close writes what is still counted, and lets go of the file.
func (l *serverLog) close() {
	l.mu.Lock()
	l.put(l.repeats.all(time.Now())...)
	l.schedule(time.Now())
	l.mu.Unlock()
	l.drain()
	l.reopen()
}

// last is the last n lines, the oldest first.
func (l *serverLog) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recent.last(n)
}

// watch has hear called with each line from now on, one at a time and with no
// lock of the log held. hear must not wait; it may be called once more while stop
// is.
func (l *serverLog) watch(hear func(line string)) (stop func()) {
	h := &hearer{hear}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hearers = append(slices.Clone(l.hearers), h)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hearers = slices.DeleteFunc(slices.Clone(l.hearers), func(other *hearer) bool { return other == h })
	}
}

// add logs a line, unless it is one of too many.
func (l *serverLog) add(level slog.Level, message, text string) {
	line := logLine{at: time.Now(), level: level, text: cutLine(text, longestText)}
	l.mu.Lock()
	l.put(l.repeats.take(line, message)...)
	l.schedule(line.at)
	l.mu.Unlock()
	l.drain()
}

// put has lines written and remembered. l.mu is held.
func (l *serverLog) put(lines ...logLine) {
	for _, line := range lines {
		l.recent.add(line.String())
		if len(l.queue) < longestQueue {
			l.queue = append(l.queue, line)
		} else {
			l.overflow++
		}
	}
}

// schedule sets the timer where something is being counted. l.mu is held.
func (l *serverLog) schedule(now time.Time) {
	next, counts := l.repeats.next()
	switch {
	case counts && l.timer == nil:
		l.timer = time.AfterFunc(next.Sub(now), l.sumUp)
	case counts:
		l.timer.Reset(next.Sub(now))
	case l.timer != nil:
		l.timer.Stop()
		l.timer = nil
	}
}

// sumUp writes how often lines came whose time is over.
func (l *serverLog) sumUp() {
	now := time.Now()
	l.mu.Lock()
	l.timer = nil
	l.put(l.repeats.due(now)...)
	l.schedule(now)
	l.mu.Unlock()
	l.drain()
}

// drain writes what waits, unless somebody else is about it.
func (l *serverLog) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing {
		return
	}
	l.writing = true
	for len(l.queue) > 0 {
		lines, hearers := l.queue, l.hearers
		l.queue, l.lost, l.overflow = nil, l.lost+l.overflow, 0
		l.mu.Unlock()
		for _, line := range lines {
			tell(hearers, line)
			l.write(line)
		}
		l.mu.Lock()
	}
	l.writing = false
	l.idle.Broadcast()
}

// exclusively does something while nobody writes.
func (l *serverLog) exclusively(do func()) {
	l.mu.Lock()
	for l.writing {
		l.idle.Wait()
	}
	l.writing = true
	l.mu.Unlock()
	do()
	l.mu.Lock()
	l.writing = false
	l.idle.Broadcast()
	l.mu.Unlock()
	l.drain()
}

// write writes a line and, where some before it could not be, how many. Only
// who has set l.writing does it.
func (l *serverLog) write(line logLine) {
	if l.lost > 0 {
		missing := ownLine(slog.LevelWarn, fmt.Sprintf("%s could not be written to the log", counted(l.lost, "line")))
		if l.output(missing) == nil {
			l.lost = 0
			l.remember(missing)
		}
	}
	err := l.output(line)
	if err != nil && !l.failing {
		trouble := ownLine(slog.LevelError, fmt.Sprintf("cannot write to the log; lines are dropped until that works: %v", err))
		if l.file != nil {
			_, _ = l.stderr.Write(trouble.encode(l.journal)) // whoever started the server may see it
		}
		l.remember(trouble)
	}
	if l.failing = err != nil; l.failing {
		l.lost++
	}
}

// output writes one line.
func (l *serverLog) output(line logLine) error {
	if l.file != nil {
		return l.file.write(line.encode(false))
	}
	_, err := l.stderr.Write(line.encode(l.journal))
	return err
}

// remember keeps and tells a line of the log about itself.
func (l *serverLog) remember(line logLine) {
	l.mu.Lock()
	l.recent.add(line.String())
	hearers := l.hearers
	l.mu.Unlock()
	tell(hearers, line)
}

func tell(hearers []*hearer, line logLine) {
	for _, h := range hearers {
		h.hear(line.String())
	}
}

// lineRing is the last lines, so many and so many bytes of them at most.
type lineRing struct {
	lines []string
	bytes int
}

const (
	ringLines = 1000
	ringBytes = 256 << 10
)

func (r *lineRing) add(line string) {
	r.lines, r.bytes = append(r.lines, line), r.bytes+len(line)
	for len(r.lines) > ringLines || r.bytes > ringBytes {
		r.bytes -= len(r.lines[0])
		r.lines[0] = "" // the array stays for a while
		r.lines = r.lines[1:]
	}
}

func (r *lineRing) last(n int) []string {
	return slices.Clone(r.lines[max(len(r.lines)-max(n, 0), 0):])
}

// handler is what slog needs to log here.
func (l *serverLog) handler() slog.Handler { return &logHandler{log: l} }

// logHandler formats records for a serverLog.
type logHandler struct {
	log  *serverLog
	with []func(slog.Handler) slog.Handler // what WithAttrs and WithGroup have added
}

// Enabled lets what administrators did through whatever log.level says.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.log.level.Level() || level == levelAudit
}

// Handle leaves quoting to slog's own handler: its lines hold nothing that is
// not printable, whatever the values hold.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	var text strings.Builder
	var inner slog.Handler = slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: nameAudit})
	for _, with := range h.with {
		inner = with(inner)
	}
	r.Time = time.Time{} // added later: lines that differ only in it are the same
	if err := inner.Handle(ctx, r); err != nil {
		return fmt.Errorf("formatting a line of the log: %w", err)
	}
	h.log.add(r.Level, r.Message, strings.TrimSuffix(text.String(), "\n"))
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.plus(func(inner slog.Handler) slog.Handler { return inner.WithAttrs(attrs) })
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return h.plus(func(inner slog.Handler) slog.Handler { return inner.WithGroup(name) })
}

func (h *logHandler) plus(with func(slog.Handler) slog.Handler) slog.Handler {
	return &logHandler{h.log, append(slices.Clone(h.with), with)}
}

// nameAudit shows levelAudit as AUDIT.
func nameAudit(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == levelAudit {
		a.Value = slog.StringValue("AUDIT")
	}
	return a
}
