package main

import "slices"

// replyChunk is how much of a long reply is sent at a time.
const replyChunk = 8 << 10

// reply is what a command answers with. Handlers give it cells and lines of text; how
// they are shown is decided here, and nowhere else. A short reply is sent as a whole;
// one that grows past replyChunk goes out in pieces, and nothing comes between them.
type reply struct {
	s         *session
	look      look     // how it is shown
	command   *command // what is answered; nil: there is no such command
	line      []byte   // what is not sent yet
	err       error    // the connection ended while it was being sent; nil: it goes on
	streaming bool
	then      func() // runs once the reply is on its way; nil: nothing does
}

// ret begins the reply to a command.
func (r *reply) ret(what string, cells ...cell) {
	if r.look == lookPlain {
		return // people see what follows
	}
	r.line = appendLine(append(r.line, "@ret #"...), what, cells)
	r.flushFull()
}

// list begins the reply to a command that lists n things, a row or a line of text
// each.
func (r *reply) list(what string, n int) { r.ret(what, num(int64(n))) }

// row adds a line of cells.
func (r *reply) row(cells ...cell) {
	if r.look == lookPlain && r.command.row != nil {
		r.line = append(append(r.line, r.command.row(slices.Clone(cells))...), '\r', '\n') // cells stay on the stack
	} else {
		r.line = appendLine(r.line, "", cells)
	}
	r.flushFull()
}

// text adds a line of text as it is.
func (r *reply) text(line string) {
	r.line = appendLine(r.line, line, nil)
	r.flushFull()
}

// flushFull sends what has been written once it is a chunk, and waits for the socket
// if it must. Once the connection has ended, further output is thrown away.
func (r *reply) flushFull() {
	switch {
	case r.err != nil:
		r.line = r.line[:0]
	case len(r.line) >= replyChunk:
		if !r.streaming {
			r.streaming = true
			r.s.flush()
			r.s.out.beginStream()
		}
		r.err = r.flush()
		r.s.out.flush()
	}
}

// flush sends what has been written.
func (r *reply) flush() error {
	sent := slices.Clone(r.line)
	r.line = r.line[:0]
	return r.s.send(sent)
}

// finish ends a command that succeeded: with what it wrote, or @status 0.
func (r *reply) finish() error {
	switch {
	case r.err != nil:
		err := r.err
		r.abandon()
		return err
	case r.streaming:
		err := r.flush()
		r.streaming = false
		r.s.out.endStream()
		return err
	case len(r.line) == 0:
		return r.status(statusOK)
	}
	return r.flush()
}

// status answers with a status and nothing else.
func (r *reply) status(code status) error {
	switch {
	case r.look == lookPlain:
		return r.statusSentence(code)
	case code == statusOK:
		return r.s.send(okLine)
	}
	return r.s.send(statusLine(code))
}

// abandon forgets what a command wrote before it failed. It reports whether a
// part of that was sent already: then the connection cannot go on.
func (r *reply) abandon() (begun bool) {
	r.line, r.err = r.line[:0], nil
	if !r.streaming {
		return false
	}
	r.streaming = false
	r.s.out.endStream()
	return true
}
