package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// scale is how many messages the large store of the benchmarks has; accounts are
// a tenth of that, rooms a hundredth.
var scale = flag.Int("scale", 100_000, "messages in the large store of the benchmarks")

// largeFolder makes a data folder with scale messages in one group, a tenth as
// many accounts and a hundredth as many rooms.
func largeFolder(b *testing.B) config {
	cfg := testConfig(b)
	cfg.Limits.Rooms = 0
	o := storeOptions{folder: cfg.Server.Data, periodic: true, every: time.Second, readers: 1, now: time.Now, lost: func(record) {}}
	st, err := openStore(o)
	if err != nil {
		b.Fatal(err)
	}
	add := func(r record) int64 {
		if err := st.add(&r); err != nil {
			b.Fatal(err)
		}
		return r.id
	}
	v := &verifier{salt: randomBytes(saltBytes), rounds: 16, storedKey: randomBytes(32), serverKey: randomBytes(32)}
	for i := range *scale / 10 {
		n := fmt.Sprintf("account%d", i)
		add(accountRecord(0, name{n, n}, &accountBody{verifier: v, realName: "Real Name", email: "mail@example.org"}))
	}
	for i := range *scale / 100 {
		n := fmt.Sprintf("room%d", i)
		add(record{kind: kindRoom, ends: never, head: packRoom(&place{name: name{n, n}})})
	}
	group := add(record{kind: kindGroup, ends: never, head: packGroup(&place{name: name{"posts", "posts"}, ttl: time.Hour})})
	text := packFields(strings.Repeat("x", 200))
	for range *scale {
		add(record{kind: kindMessage, group: group, ends: never, head: packFields("heading", "author"), body: text})
	}
	if err := st.close(); err != nil {
		b.Fatal(err)
	}
	return cfg
}

// BenchmarkStart: from nothing to the first login, with a large store.
func BenchmarkStart(b *testing.B) {
	cfg := largeFolder(b)
	b.ResetTimer()
	for range b.N {
		srv := startWith(b, cfg)
		srv.guest("alice")
		b.StopTimer()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "heap-MiB")
		b.ReportMetric(residentMiB(b), "resident-MiB")
		srv.stopNow()
		b.StartTimer()
	}
}

// residentMiB is the memory that this process has, in MiB.
func residentMiB(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("there is no /proc/self/status here")
	}
	var kb float64
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %g", &kb); err == nil {
			break
		}
	}
	return kb / 1024
}

// BenchmarkList: "#listmessages" of a large group, to its first line and to its
// last, and "#listrooms".
func BenchmarkList(b *testing.B) {
	srv := startWith(b, largeFolder(b))
	alice := srv.guest("alice")
	alice.ask("#joingroup posts", "@status 0")
	for command, lines := range map[string]int{"#listmessages": *scale, "#listrooms": *scale/100 + 1} {
		b.Run(strings.TrimPrefix(command, "#"), func(b *testing.B) {
			var first time.Duration
			for b.Loop() {
				began := time.Now()
				alice.ask(command, fmt.Sprintf("@ret %s %d", command, lines))
				first += time.Since(began)
				for range lines {
					alice.read()
				}
			}
			b.ReportMetric(float64(first.Microseconds())/float64(b.N)/1000, "ms-to-first-line")
		})
	}
}
