package store

import (
	"os"
	"slices"
	"sync"
	"time"
)

// Stats is how the database is doing.
type Stats struct {
	Bytes    int64 // of its files
	Commits  int64 // since the start
	P50, P99 time.Duration
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

// Stats is how many there were, and the median and the 99th percentile of the
// last ones.
func (t *commitTimes) Stats() (count int64, p50, p99 time.Duration) {
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

// Stats measures the database; what cannot be measured shows as 0.
func (st *SQLite) Stats() Stats {
	var s Stats
	for _, name := range []string{st.path, st.path + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			s.Bytes += info.Size()
		}
	}
	s.Commits, s.P50, s.P99 = st.writer.commits.Stats()
	return s
}
