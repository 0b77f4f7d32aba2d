package main

import "slices"

// reply is what a command answers with. A short one is sent as a whole; one that
// grows past replyChunk goes out in pieces, and nothing comes between them.
type reply struct {
	s         *session
	line      lineOf // what is not sent yet
	streaming bool
	then      func() // runs once the reply is on its way; nil: nothing does
}

// flushFull sends what has been written once it is a chunk, and waits for the
// socket where it must. Handlers of long lists call it after every line.
func (r *reply) flushFull() error {
	if len(r.line) < replyChunk {
		return nil
	}
	if !r.streaming {
		r.streaming = true
		r.s.flush()
		r.s.out.beginStream()
	}
	err := r.flush()
	r.s.out.flush()
	return err
}

// flush sends what has been written.
func (r *reply) flush() error {
	f := &frame{line: slices.Clone(r.line)}
	r.line = r.line[:0]
	return r.s.send(f)
}

// finish ends a command that succeeded: with what it wrote, or @status 0.
func (r *reply) finish() error {
	if r.streaming {
		err := r.flush()
		r.streaming = false
		r.s.out.endStream()
		return err
	}
	if len(r.line) == 0 {
		return r.s.send(okFrame)
	}
	return r.flush()
}

// abandon forgets what a command wrote before it failed. It reports whether a
// part of that was sent already: then the connection cannot go on.
func (r *reply) abandon() (begun bool) {
	r.line = r.line[:0]
	if !r.streaming {
		return false
	}
	r.streaming = false
	r.s.out.endStream()
	return true
}

// number answers "@ret #<what> <n>".
func (r *reply) number(what string, n int64) error {
	r.line = r.line.word("@ret #" + what).num(n).end()
	return nil
}
