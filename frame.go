package main

import (
	"sync"
	"time"
)

// look is how lines are shown to whoever is at the other end of a connection.
type look uint8

const (
	lookProgram look = iota // as the protocol has them
	lookPlain               // as sentences, for people
	looks       = iota
)

// frame is a line that the server sends unasked: what has happened, and the names and
// texts that belong to it. It is encoded once for each look, when somebody first needs
// that, and the same bytes go to all. Nobody changes it after it was made.
type frame struct {
	what  string // the protocol's word for it: broadcast, sendto, entered, ...
	cells []cell
	at    time.Time // when it was said; people are shown that

	mu    sync.Mutex
	shown [looks][]byte // nil: nobody has needed it
}

// eventFrame is "@mess #<what>" and cells.
func eventFrame(what string, cells ...cell) *frame { return &frame{what: what, cells: cells} }

// messFrame is "@mess #<what> <name> "<text>"".
func messFrame(what, name, text string) *frame {
	if name == "" {
		return eventFrame(what, quoted(text))
	}
	return eventFrame(what, named(name), quoted(text))
}

// warningFrame tells a user something that no command asked for.
func warningFrame(text string) *frame { return eventFrame("warning", quoted(text)) }

// show is the frame's line as a look has it, its line end included.
func (f *frame) show(l look) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shown[l] == nil {
		size := 32 + len(f.what)
		for _, c := range f.cells {
			size += len(c.text) + 4
		}
		f.shown[l] = f.append(make([]byte, 0, size), l)
	}
	return f.shown[l]
}

// append encodes the frame behind b.
func (f *frame) append(b []byte, l look) []byte {
	if l == lookPlain {
		return appendSentence(b, f)
	}
	return appendLine(append(b, "@mess #"...), f.what, f.cells)
}
