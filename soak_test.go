package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"homeroom/store"
	"homeroom/test/wire"
)

// TestBusyDay: a day of 20 users, who talk and post each minute, leaves nothing
// behind that grows. (It is not parallel: it measures this process's memory.)
func TestBusyDay(t *testing.T) {
	if raceDetector {
		t.Skip("timers that end in one moment of a bubble crash Go's race detector now and then; the gate runs this without it")
	}
	inBubble(t, func(b *bubble) {
		var users []*wire.Client
		for i := range 20 {
			users = append(users, b.guest(fmt.Sprintf("user%d", i)))
		}
		users[0].Ask(`#creategroup news "" anon`, "@status 0")
		for _, u := range users {
			u.Ask("#joingroup news", "@status 0")
		}
		var sizes []int
		for minute := range minutesADay {
			b.busyMinute(users, minute)
			if (minute+1)%(minutesADay/4) == 0 {
				sizes = append(sizes, b.leftBehind())
			}
		}
		t.Logf("KiB of memory after each quarter of the day: %v; %d messages are stored", sizes, b.messages.stored.Load())
		if first, last := sizes[0], sizes[len(sizes)-1]; last > first+first/4+1024 {
			t.Errorf("the memory grows from %d to %d KiB", first, last)
		}
		if n := b.messages.stored.Load(); n > 60*20 {
			t.Errorf("%d messages are stored; those of more than an hour should be gone", n)
		}
	})
}

// busyMinute is what users do in a minute; then the minute is over.
func (b *bubble) busyMinute(users []*wire.Client, minute int) {
	b.t.Helper()
	for i, u := range users {
		u.Send("#broadcast hello", fmt.Sprintf("#postmessage heading%d 0 1 %d", minute, 60+i*180), "text")
	}
	passing := b.dialBriefly()
	passing.Send(fmt.Sprintf("#login anon guest%d", minute), fmt.Sprintf("#createroom room%d", minute), "#login regd nobody wrong")
	passing.Barrier()
	passing.Conn.Close()
	for _, u := range users {
		u.Barrier()
	}
	b.pass(time.Minute)
}

// leftBehind checks what must not grow, and returns the memory in use, in KiB.
func (b *bubble) leftBehind() int {
	b.t.Helper()
	if n := len(b.rooms.all()); n > 35 {
		b.t.Errorf("%d rooms are left", n)
	}
	if log, err := os.Stat(filepath.Join(b.cfg.Server.Data, store.DatabaseFile+"-wal")); err != nil || log.Size() > mostLog {
		b.t.Errorf("the database's log: %v, %v", log, err)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 10)
}

// mostLog is how large the database's log (-wal) may get: what is folded at once,
// and as much again while that is done.
const mostLog = 2 * 4000 * (1024 + 24)
