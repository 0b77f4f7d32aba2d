package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode"

	"homeroom/logbook"
)

// TestLogFitsProtocol: whatever is logged is one printable line that fits into
// one of the protocol.
func TestLogFitsProtocol(t *testing.T) {
	t.Parallel()
	cfg := defaultConfig()
	l := logbook.New(io.Discard)
	l.Configure(cfg.logOptions())
	log := slog.New(l.Handler())
	for i, text := range []string{
		"\x1b[2J\x07", "a\r\n@mess #warning \"x\"", "\u202e\u2066\u2028\u0085", "\xff\xfe\x80", "\xff\xf6",
		strings.Repeat("x", 5000), strings.Repeat(`"\`, 2000), strings.Repeat("ä€😀", 700), strings.Repeat("\x00", 900),
	} {
		m := fmt.Sprint("m", i)
		log.Info(text)
		log.Info(m, "k", text)
		log.Info(m, text, 1)
		log.Info(m, slog.Group(text, "k", 1))
		log.WithGroup(text).Info(m, "k", []byte(text))
	}
	lines := l.Last(logbook.Kept)
	if len(lines) != 9*5 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if b := eventFrame("log", quoted(line)).show(lookProgram); len(b) > maxLine {
			t.Errorf("%d bytes as a line of the protocol: %q", len(b), line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			t.Errorf("not printable: %q", line)
		}
	}
}
