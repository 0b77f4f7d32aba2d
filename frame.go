package main

import (
	"fmt"
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

// appendSentence appends what has happened in a form for people.
func appendSentence(b []byte, f *frame) []byte {
	text := func(i int) string { return f.cells[i].text }
	switch f.what {
	case "broadcast":
		b = fmt.Appendf(b, "%s %s: %s", f.at.Format("15:04"), text(0), text(1))
	case "sendto":
		b = fmt.Appendf(b, "%s [%s to you] %s", f.at.Format("15:04"), text(0), text(1))
	case "announce":
		b = fmt.Appendf(b, "* %s announces: %s", text(0), text(1))
	case "entered":
		b = fmt.Appendf(b, "* %s came in", text(1))
	case "left":
		b = fmt.Appendf(b, "* %s left", text(1))
	case "posted":
		b = fmt.Appendf(b, "* %s posted to %s: %s", text(3), text(0), text(4))
	case "deleted":
		b = fmt.Appendf(b, "* message %d of %s is gone", f.cells[1].num, text(0))
	case "warning", "log":
		b = fmt.Appendf(b, "* %s", text(0))
	default:
		return appendLine(b, "* "+f.what, f.cells)
	}
	return append(b, '\r', '\n')
}
