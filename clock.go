package main

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

// clock is the server's own time: it goes on while the server runs, whatever
// happens to the wall clock, and over a restart it continues.
type clock struct {
	base    instant
	started time.Time // with Go's monotonic reading
}

// newClock continues from what was saved: the clock's time, and the wall
// clock's at that moment in Unix milliseconds (0: never saved). The time since
// then counts where both wall clock readings are believable.
func newClock(saved instant, savedWall int64, now time.Time) *clock {
	c := &clock{base: saved, started: now}
	then := time.UnixMilli(savedWall)
	if off := now.Round(0).Sub(then); then.After(firstWall) && off > 0 && off <= longestOff {
		c.base += off.Milliseconds()
	}
	return c
}

// now is the time on the server's clock; it never goes back.
func (c *clock) now() instant { return c.base + time.Since(c.started).Milliseconds() }

// after is the end of what lives for d from t on; 0 is for ever.
func after(t instant, d time.Duration) instant {
	if d <= 0 {
		return never
	}
	return t + d.Milliseconds()
}

// secondsUntil is how many seconds are left until end, at least 1 before it is
// reached; 0 for what has no end.
func secondsUntil(end, now instant) int64 {
	if end == never {
		return 0
	}
	return max((end-now+999)/1000, 1)
}

// seconds makes a duration of a number of seconds, without overflowing.
func seconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
}
