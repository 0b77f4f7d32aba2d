package logbook

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"
)

const (
	countFor   = time.Minute // then it is said how many lines were not written
	mostAlike  = 30          // lines of one message in that time
	mostCounts = 200         // messages that are counted apart from each other

	otherMessages = "(other messages)" // past that
)

// repeats decides which lines are written. Of a message, a line that is the same
// as its last one is counted, and so are those of which there are too many.
type repeats struct {
	counts []*lineCount
	newest *lineCount // whose line was written last; nil: it is forgotten
}

// lineCount counts the lines of one message.
type lineCount struct {
	message string
	level   slog.Level
	began   time.Time // when the counting of these began
	written int
	more    int // that were not written

	text      string // the last line that was written
	textSince time.Time
	same      int // lines like it since then
}

// take is what is to be written now that a line has come.
func (r *repeats) take(line entry, message string) []entry {
	out := r.due(line.at)
	if line.level == LevelAudit {
		return append(out, append(r.interrupted(line.at), line)...)
	}
	c := r.count(line, message)
	switch {
	case c.text == line.text:
		c.same++
		return out
	case c.written >= mostAlike:
		c.more++
		return out
	}
	out = append(out, r.interrupted(line.at)...)
	c.written++
	c.level, c.text, c.textSince, c.same = line.level, line.text, line.at, 0
	r.newest = c
	return append(out, line)
}

// count finds the count of a message, or begins one. Past mostCounts all new
// ones share one.
func (r *repeats) count(line entry, message string) *lineCount {
	for _, c := range r.counts {
		if c.message == message {
			return c
		}
	}
	if len(r.counts) >= mostCounts && message != otherMessages {
		return r.count(line, otherMessages)
	}
	c := &lineCount{message: message, level: line.level, began: line.at}
	r.counts = append(r.counts, c)
	return c
}

// interrupted says how often the last line was repeated, before another one.
func (r *repeats) interrupted(now time.Time) []entry {
	if r.newest == nil {
		return nil
	}
	return r.newest.sayRepeated(now)
}

// due says what was counted for messages whose time is over, and forgets those
// that did not come again.
func (r *repeats) due(now time.Time) (out []entry) {
	r.counts = slices.DeleteFunc(r.counts, func(c *lineCount) bool {
		if now.Sub(c.began) < countFor {
			return false
		}
		said := c.sum(now)
		out = append(out, said...)
		if len(said) == 0 && r.newest == c {
			r.newest = nil
		}
		return len(said) == 0
	})
	return out
}

// all says what was counted until now.
func (r *repeats) all(now time.Time) (out []entry) {
	for _, c := range r.counts {
		out = append(out, c.sum(now)...)
	}
	return out
}

// next is when due has something to say, if it has.
func (r *repeats) next() (at time.Time, counts bool) {
	for _, c := range r.counts {
		ends := c.began.Add(countFor)
		if c.same+c.more > 0 && (!counts || ends.Before(at)) {
			at, counts = ends, true
		}
	}
	return at, counts
}

// sum says what was counted, and begins anew.
func (c *lineCount) sum(now time.Time) []entry {
	out := c.sayRepeated(now)
	if c.more > 0 {
		out = append(out, c.say(now, strconv.Itoa(c.more)+" more like this", c.began))
	}
	c.began, c.written, c.more = now, 0, 0
	return out
}

func (c *lineCount) sayRepeated(now time.Time) []entry {
	if c.same == 0 {
		return nil
	}
	line := c.say(now, "repeated "+counted(c.same, "time"), c.textSince)
	c.textSince, c.same = now, 0
	return []entry{line}
}

func (c *lineCount) say(now time.Time, what string, since time.Time) entry {
	message := fmt.Sprintf("(%s in %.0f s) %s", what, math.Ceil(now.Sub(since).Seconds()), c.message)
	return entry{at: now, level: c.level, text: ownText(c.level, message)}
}
