package logbook

import (
	"fmt"
	"log/slog"
	"time"
)

const (
	refillAfter = time.Minute // then a bucket is full again
	bucketSize  = 30          // lines of one message in that time
	mostBuckets = 200         // messages that have a bucket of their own

	otherMessages = "(other messages)" // past that, all share this one
)

// bucket is a token bucket: how many more lines of one message may be written, and
// how many were not.
type bucket struct {
	message string
	level   slog.Level
	filled  time.Time
	tokens  int
	dropped int
}

// buckets holds one for each message that was logged lately, the oldest first.
type buckets []*bucket

// take returns what is to be written now that a line has come: the line, where its
// message has a token left, and before it what was dropped until a minute ago.
func (b *buckets) take(line entry, message string) (out []entry) {
	out = b.sumUp(line.at.Add(-refillAfter), line.at)
	if line.level == LevelAudit {
		return append(out, line)
	}
	own := b.of(message, line)
	if own.tokens == 0 {
		own.dropped++
		return out
	}
	own.tokens--
	return append(out, line)
}

// of finds the bucket of a message, or adds a full one.
func (b *buckets) of(message string, line entry) *bucket {
	for _, own := range *b {
		if own.message == message {
			return own
		}
	}
	if len(*b) >= mostBuckets && message != otherMessages {
		return b.of(otherMessages, line)
	}
	own := &bucket{message: message, level: line.level, filled: line.at, tokens: bucketSize}
	*b = append(*b, own)
	return own
}

// sumUp takes the buckets away that were filled until then, and says what each has
// dropped.
func (b *buckets) sumUp(until, now time.Time) (out []entry) {
	for len(*b) > 0 && !(*b)[0].filled.After(until) {
		if own := (*b)[0]; own.dropped > 0 {
			message := fmt.Sprintf("(%d more like this in %.0f s) %s", own.dropped, min(now.Sub(own.filled), refillAfter).Seconds(), own.message)
			out = append(out, entry{at: now, level: own.level, text: ownText(own.level, message)})
		}
		*b = (*b)[1:]
	}
	return out
}
