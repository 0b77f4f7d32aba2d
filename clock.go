package main

// Times to live run on a clock of the server's own, which nobody can set: a Pi without a
// clock battery wakes up in 1970 and learns the time a minute later, and must delete
// nothing early for that. It is monotonic while the server runs, and continues at start
// from what was saved, plus the time that the machine was off, if the wall clock is
// believable at both ends. The expirer (expire.go) is the only ticker that it has.

import (
	"math"
	"time"
)

// never is the end of what does not expire, on the server's clock.
const never = math.MaxInt64

// instant is a point on the server's own clock, in milliseconds.
type instant = int64

// longestOff is how long a machine is believed to have been switched off; a
// wall clock that claims more is taken to be wrong.
const longestOff = 400 * 24 * time.Hour

// firstWall is before any moment at which this program can really run: a wall
// clock that shows an earlier time (1970, on a Pi without a clock battery) has
// not been set.
var firstWall = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// firstKept is when the time is first saved although nothing changed, in ms from
// the start, where the wall clock cannot be right; then at twice that, and so
// on. Otherwise nothing would ever expire on a machine that wakes up in 1970 and is
// switched off at the wall every evening.
const firstKept = 600_000

// clock is the server's own time. While the server runs it is monotonic, whatever
// happens to the wall clock, and over a restart it continues.
type clock struct {
	base    instant
	wallMs  int64     // the time of day at base, as far as it is known, in Unix ms
	sure    bool      // the wall clock can be right: what passes counts after a crash too
	started time.Time // with Go's monotonic reading
}

// newClock continues from what was saved: the clock's time, and the time of day
// at that moment in Unix milliseconds (0: never saved). The time since then
// counts where both readings of the wall clock are believable.
func newClock(saved instant, savedWall int64, now time.Time) *clock {
	c := &clock{base: saved, wallMs: savedWall, started: now}
	then := time.UnixMilli(savedWall)
	off := now.Round(0).Sub(then)
	switch {
	case now.Before(firstWall): // what was saved stays the best that is known
	case !then.After(firstWall) || off > longestOff || off < -longestOff:
		c.wallMs, c.sure = now.UnixMilli(), true // one of the two is nonsense: it begins anew
	case off > 0:
		c.base, c.wallMs, c.sure = saved+off.Milliseconds(), now.UnixMilli(), true
	} // else it was set back a little: what has been counted must not count again
	return c
}

// wall returns the time of day to save beside now. It advances as the clock does:
// setting the wall clock while the server runs, to the right time or to a wrong one,
// does not change how long the server will have been off.
func (c *clock) wall() int64 { return c.wallMs + time.Since(c.started).Milliseconds() }

// now returns the time on the server's clock, which never goes back.
func (c *clock) now() instant { return c.base + time.Since(c.started).Milliseconds() }

// after returns when something ends that lives for d from t on; 0 is for ever.
func after(t instant, d time.Duration) instant {
	if d <= 0 {
		return never
	}
	return t + d.Milliseconds()
}

// secondsUntil returns how many seconds are left until end, rounded up, and at least
// 1; 0 means that there is no end.
func secondsUntil(end, now instant) int64 {
	if end == never {
		return 0
	}
	return max((end-now+999)/1000, 1)
}

// seconds converts a number of seconds to a duration without overflowing.
func seconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
}

// wallClock gives the machine's time of day; tests give another.
type wallClock func() time.Time
