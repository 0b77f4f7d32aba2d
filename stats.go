package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stat is one thing that #stats tells. Its key is a word in lower case.
type stat struct{ key, value string }

// counts is what happened since the server began.
type counts struct {
	bytesIn, bytesOut atomic.Int64
	slowReaders       atomic.Int64 // disconnected because they did not read
	refusedLogins     atomic.Int64

	mu       sync.Mutex
	messages meter // broadcasts, private and posted messages
}

// said counts a message that somebody sent.
func (c *counts) said(at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages.add(at, 1)
}

// sent is how many messages there were, and how many a second lately.
func (c *counts) sent(at time.Duration) (total int64, perSecond float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages.total, c.messages.perSecond(at)
}

// meterSpan is over how many whole seconds a rate is taken.
const meterSpan = 10

// meter counts what happens, and how often it did lately.
type meter struct {
	total   int64
	newest  int64                // the second that is being counted
	seconds [meterSpan + 1]int64 // it, and those before it
}

// add counts n at a moment.
func (m *meter) add(at time.Duration, n int64) {
	m.advance(int64(at / time.Second))
	m.total += n
	m.seconds[m.newest%int64(len(m.seconds))] += n
}

// advance begins another second, and empties those in which nothing happened.
func (m *meter) advance(second int64) {
	for s := max(m.newest, second-int64(len(m.seconds))) + 1; s <= second; s++ {
		m.seconds[s%int64(len(m.seconds))] = 0
	}
	m.newest = max(m.newest, second)
}

// perSecond is the rate over the last whole seconds.
func (m *meter) perSecond(at time.Duration) float64 {
	m.advance(int64(at / time.Second))
	sum := -m.seconds[m.newest%int64(len(m.seconds))]
	for _, n := range m.seconds {
		sum += n
	}
	return float64(sum) / meterSpan
}

// storeStats is how the database is doing.
type storeStats struct {
	bytes    int64 // of its files
	commits  int64 // since the start
	p50, p99 time.Duration
}

// commitTimes keeps how long the last commits took.
type commitTimes struct {
	mu    sync.Mutex
	count int64
	last  [512]time.Duration
}

// add notes one.
func (t *commitTimes) add(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[t.count%int64(len(t.last))] = took
	t.count++
}

// stats is how many there were, and the median and the 99th percentile of the
// last ones.
func (t *commitTimes) stats() (count int64, p50, p99 time.Duration) {
	t.mu.Lock()
	count = t.count
	last := slices.Clone(t.last[:min(count, int64(len(t.last)))])
	t.mu.Unlock()
	if len(last) == 0 {
		return 0, 0, 0
	}
	slices.Sort(last)
	return count, last[len(last)/2], last[len(last)*99/100]
}

// stats measures the database; what cannot be measured shows as 0.
func (st *sqliteStore) stats() storeStats {
	var s storeStats
	for _, name := range []string{st.path, st.path + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			s.bytes += info.Size()
		}
	}
	s.commits, s.p50, s.p99 = st.writer.commits.stats()
	return s
}

// backupNote is the file in the data folder whose time is that of the last backup.
const backupNote = "last-backup"

// noteBackup notes in a data folder that it was backed up now.
func noteBackup(folder string) error {
	err := os.WriteFile(filepath.Join(folder, backupNote), nil, 0o600)
	if err != nil {
		return fmt.Errorf("noting the time of the backup: %w", err)
	}
	return nil
}

// lastBackup is when a folder was backed up last, in Unix seconds; 0: never.
func lastBackup(folder string) int64 {
	info, err := os.Stat(filepath.Join(folder, backupNote))
	if err != nil {
		return 0
	}
	return info.ModTime().Unix()
}

// stats is how the server is, in the order in which it is shown.
func (srv *server) stats() []stat {
	at := time.Since(srv.began)
	guests, accounts := srv.users.count()
	sent, rate := srv.counts.sent(at)
	db := srv.store.stats()
	stats := []stat{
		{"version", version},
		{"uptime_seconds", number(int64(at / time.Second))},
		{"users_online", number(int64(guests))},
		{"accounts", number(int64(accounts))},
		{"connections", number(int64(srv.doorway.admission.connections()))},
		{"rooms", number(int64(len(srv.rooms.all())))},
		{"groups", number(int64(len(srv.groups.all())))},
		{"messages_stored", number(srv.messages.stored.Load())},
		{"messages_sent", number(sent)},
		{"messages_per_second", strconv.FormatFloat(rate, 'f', 1, 64)},
		{"bytes_in", number(srv.counts.bytesIn.Load())},
		{"bytes_out", number(srv.counts.bytesOut.Load())},
		{"slow_readers_dropped", number(srv.counts.slowReaders.Load())},
		{"logins_refused", number(srv.counts.refusedLogins.Load())},
		{"bans", number(int64(len(srv.bans.all())))},
		{"suspended", number(b2i(srv.bans.suspended.Load() != nil))},
		{"goroutines", number(int64(runtime.NumGoroutine()))},
		{"database_bytes", number(db.bytes)},
		{"commits", number(db.commits)},
		{"commit_p50_ms", milliseconds(db.p50)},
		{"commit_p99_ms", milliseconds(db.p99)},
		{"last_backup", number(lastBackup(srv.cfg.Server.Data))},
	}
	return append(stats, memoryStats()...)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 3, 64)
}

// memoryStats is the memory that the process has, and what of it holds data.
func memoryStats() []stat {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}}
	metrics.Read(samples)
	stats := []stat{{"heap_bytes", strconv.FormatUint(samples[0].Value.Uint64(), 10)}}
	resident := strconv.FormatUint(samples[1].Value.Uint64(), 10)
	if kib, ok := residentKiB(); ok {
		resident = number(kib << 10)
	}
	return append(stats, stat{"memory_bytes", resident})
}

// residentKiB is how much memory the system counts for this process (proc(5)).
func residentKiB() (kib int64, ok bool) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	_, rest, found := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, false
	}
	kib, err = strconv.ParseInt(fields[0], 10, 64)
	return kib, err == nil
}

// connections is how many are open.
func (a *admission) connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}

// cmdStats is "#stats".
func (s *session) cmdStats(_ []string, r *reply) error {
	stats := s.srv.stats()
	r.list("stats", len(stats))
	for _, st := range stats {
		r.row(word(st.key), word(st.value))
	}
	return nil
}
