package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"homeroom/store"
	"homeroom/test/storetest"
)

// scale is how many messages the large store of the benchmarks has; accounts are
// a tenth of that, rooms a hundredth.
var scale = flag.Int("scale", 100_000, "messages in the large store of the benchmarks")

// largeFolder makes a data folder with so many messages in one group, a tenth as
// many accounts and a hundredth as many rooms.
func largeFolder(b *testing.B, messages int) config {
	cfg := testConfig(b)
	cfg.Limits.Rooms = 0
	o := store.Options{Folder: cfg.Server.Data, Key: store.NewKeySource(cfg.Server.Key, cfg.Server.Data, nil, newGCM), Periodic: true, Readers: 1, Fill: storetest.Values, Clock: storetest.Clock, Lost: func(store.Record) {}}
	st, err := store.OpenSQLite(o)
	if err != nil {
		b.Fatal(err)
	}
	add := func(r store.Record) int64 {
		if err := st.Add(&r); err != nil {
			b.Fatal(err)
		}
		return r.ID
	}
	v := &verifier{salt: randomBytes(saltBytes), rounds: 16, storedKey: randomBytes(32), serverKey: randomBytes(32)}
	for i := range messages / 10 {
		n := fmt.Sprintf("account%d", i)
		add(accountRecord(name{n, n}, &accountBody{verifier: v, realName: "Real Name", email: "mail@example.org"}))
	}
	for i := range messages / 100 {
		n := fmt.Sprintf("room%d", i)
		add(store.Record{Kind: store.Room, Ends: never, Head: (&room{place: place{name: name{n, n}}}).pack(&door{})})
	}
	group := add(store.Record{Kind: store.Group, Ends: never, Head: (&group{place: place{name: name{"posts", "posts"}, ttl: time.Hour}}).pack(&door{})})
	text := store.Pack(strings.Repeat("x", 200))
	for range messages {
		add(store.Record{Kind: store.Message, Group: group, Ends: never, Head: store.Pack("heading", "author"), Body: text})
	}
	if err := st.Close(); err != nil {
		b.Fatal(err)
	}
	return cfg
}

// BenchmarkStart: from nothing to the first login, with a large store.
func BenchmarkStart(b *testing.B) {
	cfg := largeFolder(b, *scale)
	b.ResetTimer()
	for range b.N {
		srv := startWith(b, cfg)
		srv.Guest("alice")
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
	srv := startWith(b, largeFolder(b, *scale))
	alice := srv.Guest("alice")
	alice.Ask("#joingroup posts", "@status 0")
	for command, lines := range map[string]int{"#listmessages": *scale, "#listrooms": *scale/100 + 1} {
		b.Run(strings.TrimPrefix(command, "#"), func(b *testing.B) {
			var first time.Duration
			for b.Loop() {
				began := time.Now()
				alice.Ask(command, fmt.Sprintf("@ret %s %d", command, lines))
				first += time.Since(began)
				for range lines {
					alice.Read()
				}
			}
			b.ReportMetric(float64(first.Microseconds())/float64(b.N)/1000, "ms-to-first-line")
		})
	}
}

// BenchmarkGrowth: what a login, a broadcast and a post cost in processor time,
// the client's part included, with a store of some size and with one ten times
// as large.
func BenchmarkGrowth(b *testing.B) {
	for _, size := range []int{*scale / 10, *scale} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			srv := startWith(b, largeFolder(b, size))
			for i := range 50 {
				c := srv.Guest(fmt.Sprintf("listener%d", i))
				go func() { _, _ = io.Copy(io.Discard, c.Conn) }()
			}
			poster := srv.Guest("poster")
			poster.Ask("#joingroup posts", "@status 0")
			srv.Guest("maker").Ask("#createlogin alice pw real mail", "@status 0")
			work := map[string]func(){
				"login": func() {
					c := srv.Dial()
					c.Ask("#login regd alice pw", "@status 0")
					c.Conn.Close()
				},
				"broadcast": func() { poster.Ask("#broadcast hello", `@mess #broadcast poster "hello"`, "@status 0") },
				"post":      func() { poster.Ask("#postmessage heading\r\n"+strings.Repeat("x", 200), "@status 0") },
			}
			for _, what := range []string{"login", "broadcast", "post"} {
				b.Run(what, func(b *testing.B) {
					before := processorTime(b)
					for b.Loop() {
						work[what]()
					}
					b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
				})
			}
		})
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
