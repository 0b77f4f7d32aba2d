package main

import (
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestClockContinues: what the clock shows at the start is what it showed when
// it was saved, plus the time in between where both wall clocks can be right.
func TestClockContinues(t *testing.T) {
	t.Parallel()
	const saved = 5_000_000
	day := 24 * time.Hour
	then := firstWall.Add(100 * day)
	tests := []struct {
		name       string
		then, now  time.Time
		neverSaved bool
		want       time.Duration // off, as it is believed
	}{
		{name: "a short stop", then: then, now: then.Add(90 * time.Second), want: 90 * time.Second},
		{name: "a year off", then: then, now: then.Add(365 * day), want: 365 * day},
		{name: "as long as is believed", then: then, now: then.Add(longestOff), want: longestOff},
		{name: "longer than that", then: then, now: then.Add(longestOff + time.Millisecond)},
		{name: "50 years forward", then: then, now: then.AddDate(50, 0, 0)},
		{name: "50 years back", then: then, now: then.AddDate(-50, 0, 0)},
		{name: "a second back", then: then, now: then.Add(-time.Second)},
		{name: "the same moment", then: then, now: then},
		{name: "wakes up in 1970", then: then, now: time.Unix(30, 0)},
		{name: "was saved in 1970", then: time.Unix(30, 0), now: then},
		{name: "both in 1970", then: time.Unix(30, 0), now: time.Unix(90, 0)},
		{name: "saved just before it can be", then: firstWall, now: firstWall.Add(time.Hour)},
		{name: "never saved", neverSaved: true, now: then},
	}
	for _, test := range tests {
		wall := test.then.UnixMilli()
		if test.neverSaved {
			wall = 0
		}
		c := newClock(saved, wall, test.now)
		if got := time.Duration(c.base-saved) * time.Millisecond; got != test.want {
			t.Errorf("%s: the clock went on by %v while off, want %v", test.name, got, test.want)
		}
	}
}

// TestClockRuns: while the server runs, its clock counts what passes, and
// nothing else.
func TestClockRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClock(1000, 0, time.Now())
		if got := c.now(); got != 1000 {
			t.Errorf("at the start: %d, want 1000", got)
		}
		time.Sleep(1500 * time.Microsecond)
		if got := c.now(); got != 1001 {
			t.Errorf("after 1.5 ms: %d, want 1001", got)
		}
		time.Sleep(50 * 365 * 24 * time.Hour)
		if got, want := c.now(), int64(1001+50*365*24*3600*1000); got != want {
			t.Errorf("after 50 years: %d, want %d", got, want)
		}
	})
}

func TestAfter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		from instant
		d    time.Duration
		want instant
	}{
		{0, 0, never}, {100, 0, never}, {100, -time.Second, never},
		{100, time.Second, 1100}, {100, time.Millisecond, 101},
		{100, math.MaxInt64, 100 + math.MaxInt64/1_000_000},
	} {
		if got := after(test.from, test.d); got != test.want {
			t.Errorf("%v after %d: %d, want %d", test.d, test.from, got, test.want)
		}
	}
}

func TestSecondsUntil(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ end, now, want instant }{
		{never, 0, 0}, {never, never - 1, 0},
		{1000, 0, 1}, {1001, 0, 2}, {1000, 1, 1}, {1000, 999, 1},
		{1000, 1000, 1}, {1000, 5000, 1}, {1_800_000, 0, 1800},
	} {
		if got := secondsUntil(test.end, test.now); got != test.want {
			t.Errorf("from %d until %d: %d s, want %d", test.now, test.end, got, test.want)
		}
	}
}

func TestSecondsDoNotOverflow(t *testing.T) {
	t.Parallel()
	if got := seconds(90); got != 90*time.Second {
		t.Errorf("90 s: %v", got)
	}
	for _, n := range []int64{math.MaxInt64, math.MaxInt64 / 1000, 10_000_000_000} {
		if got := seconds(n); got < 290*365*24*time.Hour {
			t.Errorf("%d s: %v, want as long as there is", n, got)
		}
	}
}

// TestExpirerOrder: the heap gives what expires in order, also after changes.
func TestExpirerOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newExpirer(newClock(0, 0, time.Now()))
		var order []int
		expiries := make([]expiry, 10)
		for i := range expiries {
			expiries[i].run = func() { order = append(order, i) }
			x.set(&expiries[i], instant(1000*(10-i)))
		}
		x.set(&expiries[0], 500)     // earlier
		x.set(&expiries[9], 20_000)  // later
		x.set(&expiries[5], never)   // not at all
		x.set(&expiries[5], never)   // again: nothing happens
		x.sooner(&expiries[8], 9000) // it is at 2000 already
		x.sooner(&expiries[1], 100)
		stop := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { x.run(stop) })
		time.Sleep(time.Minute)
		close(stop)
		running.Wait()
		if want := []int{1, 0, 8, 7, 6, 4, 3, 2, 9}; !slices.Equal(order, want) {
			t.Errorf("expired in the order %v, want %v", order, want)
		}
	})
}
