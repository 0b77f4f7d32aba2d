package main

import (
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"homeroom/store"
)

// stat is one thing that #stats tells. Its key is a word in lower case.
type stat struct{ key, value string }

// stats is how the server is, in the order in which it is shown.
func (srv *server) stats() []stat {
	at := time.Since(srv.began)
	guests, accounts := srv.users.count()
	sent, rate := srv.counts.sent(at)
	db := srv.store.Stats()
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
		{"database_bytes", number(db.Bytes)},
		{"commits", number(db.Commits)},
		{"commit_p50_ms", milliseconds(db.P50)},
		{"commit_p99_ms", milliseconds(db.P99)},
		{"last_backup", number(store.LastBackup(srv.cfg.Server.Data))},
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

// ports is where the server listens, for the commands of this machine: the settings
// may say something else by now.
func (d *doorway) ports() (at []stat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		at = append(at, stat{"listen", d.listener.Addr().String()})
	}
	if d.tlsListener != nil {
		at = append(at, stat{"tls_listen", d.tlsListener.Addr().String()})
	}
	if d.web != nil {
		at = append(at, stat{"web_listen", d.web.listener.Addr().String()})
	}
	return at
}

// cmdStats is "#stats".
func (s *session) cmdStats(_ []string, r *reply) error {
	stats := s.srv.stats()
	if s.host {
		stats = append(stats, s.srv.doorway.ports()...)
	}
	r.list("stats", len(stats))
	for _, st := range stats {
		r.row(word(st.key), word(st.value))
	}
	return nil
}
