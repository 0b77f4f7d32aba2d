// Package logbook is where log/slog writes: stderr, the journal, or a file that
// stays bounded.
//
// New makes a Log that goes to stderr; if that is systemd's journal, a line has its
// priority instead of its time. Configure sends it to a file, which is rotated by
// number before it gets too large. Handler is for slog.New.
//
// A Log also keeps the last lines in memory, for Last, and calls its watchers (Watch)
// with each new one. Every line is printable, whatever was logged, and as short as
// Options say.
//
// Lines go into a queue, which one of the goroutines that log empties with no lock
// held. So nobody waits for anybody else's line, and a watcher may log, though it
// must not block. While the disk is slow a bounded number of lines wait; those that
// are lost are counted in the log.
//
// So that nobody can fill the log, each message has a token bucket: 30 of its lines
// are written in a minute, whatever their values, and further ones are only counted.
// The count is written before the first line that comes when the minute is over, or
// by Close. Lines of LevelAudit are always written.
package logbook

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Log takes what is logged, writes it, and keeps the last lines in memory.
type Log struct {
	// fixed when it is made
	stderr  io.Writer
	journal bool // stderr is the journal, which knows the time itself
	level   slog.LevelVar
	longest atomic.Int64 // how long a line may be without its time, quoted

	mu       sync.Mutex
	idle     sync.Cond // no goroutine writes
	recent   lineRing
	buckets  buckets
	watchers []*watcher // replaced when it changes, so that it can be read without mu
	queue    []entry    // to be written
	overflow int        // lines that found the queue full
	writing  bool       // a goroutine writes, and owns what follows

	// owned by the goroutine that has set writing
	file    *logFile // nil: to stderr
	lost    int      // lines that could not be written since the last one that could
	failing bool     // the last one could not
}

// watcher is called with each line.
type watcher struct{ hear func(line string) }

// longestQueue is how many lines may wait while one is being written.
const longestQueue = 1000

// Options say where a log goes, and what of it.
type Options struct {
	File    string     // "": to stderr
	Level   slog.Level // of what is written, and above
	Size    int64      // how many bytes a file has at most
	Keep    int        // how many older files stay: File.1 is the newest
	MaxLine int        // how many bytes a line has at most, its time included, when it is quoted
}

// LevelAudit is for lines that say what administrators did: they are written
// whatever Options.Level says.
const LevelAudit = slog.LevelInfo + 2

// New makes a log that goes to stderr until it is configured.
func New(stderr io.Writer) *Log {
	l := &Log{stderr: stderr, journal: isJournal(stderr)}
	l.longest.Store(math.MaxInt)
	l.idle.L = &l.mu
	return l
}

// isJournal reports whether what is written there goes to systemd's journal
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

// Configure has options hold, at start and when they have changed. A file that has
// lost its name meanwhile is let go: the next line goes to the one that has it then.
func (l *Log) Configure(o Options) {
	l.level.Set(o.Level)
	if o.MaxLine > 0 {
		l.longest.Store(int64(o.MaxLine - len("time="+lineTime+" ")))
	}
	l.exclusively(func() {
		l.file.close()
		l.file = newLogFile(o)
	})
}

// Close writes what is still counted, and lets go of the file.
func (l *Log) Close() {
	l.mu.Lock()
	now := time.Now()
	l.put(l.buckets.sumUp(now, now)...)
	l.mu.Unlock()
	l.drain()
	l.exclusively(func() { l.file.close() })
}

// Last returns the last n lines, or as many as are remembered, the oldest first.
func (l *Log) Last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recent.last(n)
}

// Watch has hear called with each line from now on, one at a time and with no
// lock of the log held. hear must not block; it may be called once more while stop
// runs.
func (l *Log) Watch(hear func(line string)) (stop func()) {
	h := &watcher{hear}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers = append(slices.Clone(l.watchers), h)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.watchers = slices.DeleteFunc(slices.Clone(l.watchers), func(other *watcher) bool { return other == h })
	}
}

// add logs a line, unless it is one of too many.
func (l *Log) add(level slog.Level, message, text string) {
	line := entry{at: time.Now(), level: level, text: text}
	l.mu.Lock()
	l.put(l.buckets.take(line, message)...)
	l.mu.Unlock()
	l.drain()
}

// put has lines written and remembered. l.mu is held.
func (l *Log) put(lines ...entry) {
	for _, line := range lines {
		line.text = cutLine(line.text, int(l.longest.Load()))
		l.recent.add(line.String())
		if len(l.queue) < longestQueue {
			l.queue = append(l.queue, line)
		} else {
			l.overflow++
		}
	}
}

// drain writes what waits, unless another goroutine does so already.
func (l *Log) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing {
		return
	}
	l.writing = true
	for len(l.queue) > 0 {
		lines, watchers := l.queue, l.watchers
		l.queue, l.lost, l.overflow = nil, l.lost+l.overflow, 0
		l.mu.Unlock()
		for _, line := range lines {
			show(watchers, line)
			l.write(line)
		}
		l.mu.Lock()
	}
	l.writing = false
	l.idle.Broadcast()
}

// exclusively calls do while no goroutine writes.
func (l *Log) exclusively(do func()) {
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

// write writes a line and, where some before it could not be, how many. Only the
// goroutine that has set l.writing calls it.
func (l *Log) write(line entry) {
	if l.lost > 0 {
		missing := l.own(slog.LevelWarn, fmt.Sprintf("%s could not be written to the log", counted(l.lost, "line")))
		if l.output(missing) == nil {
			l.lost = 0
			l.remember(missing)
		}
	}
	err := l.output(line)
	if err != nil && !l.failing {
		trouble := l.own(slog.LevelError, fmt.Sprintf("cannot write to the log; lines are dropped until that works: %v", err))
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
func (l *Log) output(line entry) error {
	if l.file != nil {
		return l.file.write(line.encode(false))
	}
	_, err := l.stderr.Write(line.encode(l.journal))
	return err
}

// remember keeps a line of the log about itself, and shows it to the watchers.
func (l *Log) remember(line entry) {
	l.mu.Lock()
	l.recent.add(line.String())
	watchers := l.watchers
	l.mu.Unlock()
	show(watchers, line)
}

// show calls the watchers with a line.
func show(watchers []*watcher, line entry) {
	for _, h := range watchers {
		h.hear(line.String())
	}
}

// lineRing is the last lines, so many and so many bytes of them at most.
type lineRing struct {
	lines []string
	bytes int
}

// Kept is how many lines Last can return.
const Kept = 1000

// keptBytes is how much memory they may take.
const keptBytes = 256 << 10

func (r *lineRing) add(line string) {
	r.lines, r.bytes = append(r.lines, line), r.bytes+len(line)
	for len(r.lines) > Kept || r.bytes > keptBytes {
		r.bytes -= len(r.lines[0])
		r.lines[0] = "" // the array stays for a while
		r.lines = r.lines[1:]
	}
}

func (r *lineRing) last(n int) []string {
	return slices.Clone(r.lines[max(len(r.lines)-max(n, 0), 0):])
}

// Handler is what slog needs to log here.
func (l *Log) Handler() slog.Handler { return &handler{log: l} }

// handler formats records for a Log.
type handler struct {
	log  *Log
	with []func(slog.Handler) slog.Handler // what WithAttrs and WithGroup have added
}

// Enabled lets what administrators did through whatever log.level says.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.log.level.Level() || level == LevelAudit
}

// Handle leaves quoting to slog's own handler: its lines hold nothing that is
// not printable, whatever the values hold.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
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

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.plus(func(inner slog.Handler) slog.Handler { return inner.WithAttrs(attrs) })
}

func (h *handler) WithGroup(name string) slog.Handler {
	return h.plus(func(inner slog.Handler) slog.Handler { return inner.WithGroup(name) })
}

func (h *handler) plus(with func(slog.Handler) slog.Handler) slog.Handler {
	return &handler{h.log, append(slices.Clone(h.with), with)}
}

// nameAudit shows LevelAudit as AUDIT.
func nameAudit(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == LevelAudit {
		a.Value = slog.StringValue("AUDIT")
	}
	return a
}
