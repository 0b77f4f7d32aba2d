package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// readLines feeds a lineReader the pieces and returns what came out: the lines,
// the telnet answers, and whether the line got too long.
func readLines(pieces ...[]byte) (lines []string, answers []byte, err error) {
	var r lineReader
	for _, in := range pieces {
		for len(in) > 0 {
			line, taken, err := r.next(in)
			answers = append(answers, r.answers()...)
			if err != nil {
				return lines, answers, err
			}
			if line != nil {
				lines = append(lines, string(line))
			}
			in = in[taken:]
		}
	}
	return lines, answers, nil
}

// oneByOne cuts bytes into pieces of one.
func oneByOne(b []byte) [][]byte {
	pieces := make([][]byte, len(b))
	for i := range b {
		pieces[i] = b[i : i+1]
	}
	return pieces
}

func TestLineReader(t *testing.T) {
	for _, c := range []struct {
		in, answers string
		lines       []string
	}{
		{in: "a\r\nb\nc", lines: []string{"a", "b"}},
		{in: "\r\n\n", lines: []string{"", ""}},
		{in: "a\rb\r\r\n", lines: []string{"a\rb\r"}},
		{in: "#x\x00\x1b\n", lines: []string{"#x\x00\x1b"}},

		// rubbing out
		{in: "ab\x08c\n", lines: []string{"ac"}},
		{in: "ab\x7f\x7f\x7fc\n", lines: []string{"c"}},
		{in: "\x08\n", lines: []string{""}},
		{in: "aé\x08b\n", lines: []string{"ab"}},
		{in: "日本\x7f語\n", lines: []string{"日語"}},
		{in: "\U0001f600\U0001f600\x08\n", lines: []string{"\U0001f600"}},
		{in: "a\xff\xff\xc3\x08\x08\n", lines: []string{"a"}}, // not UTF-8: a byte each
		{in: "ab\x1b\x08c\n", lines: []string{"ac"}},          // what nobody sees does not count
		{in: "a\nb\x08c\x08\x08d\n", lines: []string{"a", "d"}},

		// telnet
		{in: "\xff\xfd\x01a\n", lines: []string{"a"}, answers: "\xff\xfc\x01"},
		{in: "\xff\xfb\x01a\n", lines: []string{"a"}, answers: "\xff\xfe\x01"},
		{in: "\xff\xfd\x01\xff\xfd\x01\xff\xfb\x01\xff\xfb\x01\n", lines: []string{""}, answers: "\xff\xfc\x01\xff\xfe\x01"},
		{in: "\xff\xfd\x00\xff\xfd\xff\xff\xfd\x00\n", lines: []string{""}, answers: "\xff\xfc\x00\xff\xfc\xff"},
		{in: "\xff\xfc\x01\xff\xfe\x01a\n", lines: []string{"a"}},
		{in: "a\xff\xf1b\xff\xf6c\n", lines: []string{"abc"}}, // NOP, are you there
		{in: "a\xff\xffb\n", lines: []string{"a\xffb"}},
		{in: "a\xff\xfa\x18\x00xterm\n\xff\xf0b\n", lines: []string{"ab"}},
		{in: "\xff\xfa\x18\xff\xff\xff\xfd\x01\xff\xf0b\n", lines: []string{"b"}},
		{in: "\xff\xfd\n\n", lines: []string{""}, answers: "\xff\xfc\n"},
		{in: "ab\xff\xfd\x01\x08c\n", lines: []string{"ac"}, answers: "\xff\xfc\x01"},
	} {
		for name, pieces := range map[string][][]byte{"whole": {[]byte(c.in)}, "byte by byte": oneByOne([]byte(c.in))} {
			lines, answers, err := readLines(pieces...)
			if err != nil || !slices.Equal(lines, c.lines) || string(answers) != c.answers {
				t.Errorf("%q %s: lines %q, answers %q, %v; want %q, %q", c.in, name, lines, answers, err, c.lines, c.answers)
			}
		}
	}
}

// TestLineLimit is the edge of the 1000 bytes, the line end included.
func TestLineLimit(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name, in string
		lines    []string // nil: the line is too long
	}{
		{"999 and LF", x(999) + "\n", []string{x(999)}},
		{"998 and CR LF", x(998) + "\r\n", []string{x(998)}},
		{"999 and CR LF", x(999) + "\r\n", nil},
		{"1000 and LF", x(1000) + "\n", nil},
		{"1001 and LF", x(1001) + "\n", nil},
		{"999 and no end", x(999), []string{}},
		{"1000 and no end", x(1000), nil},
		{"two lines of 999", x(999) + "\n" + x(999) + "\n", []string{x(999), x(999)}},
		{"a short line does not lend the next one room", "a\n" + x(1000), nil},
		{"500 characters of two bytes", strings.Repeat("é", 500) + "\n", nil},
		{"telnet bytes are not part of it", "\xff\xf1" + x(999) + "\xff\xfd\x01\n", []string{x(999)}},
		{"rubbed out bytes are", x(990) + "\x08\x08\x08\x08\x08\n", []string{x(985)}},
		{"more of them than fit", x(990) + strings.Repeat("\x08", 10) + "\n", nil},
		{"a doubled IAC is one byte", x(998) + "\xff\xff\n", []string{x(998) + "\xff"}},
		{"one too many", x(999) + "\xff\xff\n", nil},
		{"a sub-negotiation that never ends", "\xff\xfa" + x(1000), nil},
	} {
		for name, pieces := range map[string][][]byte{"whole": {[]byte(c.in)}, "byte by byte": oneByOne([]byte(c.in))} {
			lines, _, err := readLines(pieces...)
			if c.lines == nil && !errors.Is(err, errLineTooLong) {
				t.Errorf("%s, %s: %d lines, %v; want it too long", c.name, name, len(lines), err)
			}
			if c.lines != nil && (err != nil || !slices.Equal(lines, c.lines)) {
				t.Errorf("%s, %s: got %.30q, %v", c.name, name, lines, err)
			}
		}
	}
}

// TestLineReaderKeepsNothing checks that an idle connection costs no buffer.
func TestLineReaderKeepsNothing(t *testing.T) {
	var r lineReader
	for _, in := range oneByOne([]byte("#ping é\x08x\r\n")) {
		if _, _, err := r.next(in); err != nil {
			t.Fatal(err)
		}
	}
	if r.partial != nil || r.options != nil || r.came != 0 {
		t.Errorf("after a whole line it holds %+v", r)
	}
}

// FuzzLineReader checks that it does not matter how the bytes are cut into
// reads, and that no telnet byte or rubbed-out character gets through.
func FuzzLineReader(f *testing.F) {
	for _, in := range []string{
		"#ping\r\n", "ab\x08c\x7f\n", "\xff\xfd\x01#a\xff\xfa\x18\n\xff\xff\xff\xf0b\n", "\xff\xff\n\xff",
		strings.Repeat("x", 999) + "\n", strings.Repeat("é", 499) + "\xff\xf1\n", "\xff\xfa" + strings.Repeat("y", 1000),
	} {
		f.Add([]byte(in), uint16(1), uint16(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, first, step uint16) {
		lines, answers, err := readLines(in)
		for _, line := range lines {
			if strings.ContainsAny(line, "\n\x08\x7f") || len(line) >= maxLine {
				t.Fatalf("%q came out of %q", line, in)
			}
		}
		var pieces [][]byte
		rest := in
		for size := int(first); len(rest) > 0; size = int(step) {
			size = min(max(size, 1), len(rest))
			pieces, rest = append(pieces, rest[:size]), rest[size:]
		}
		for _, pieces := range [][][]byte{pieces, oneByOne(in)} {
			lines2, answers2, err2 := readLines(pieces...)
			if !slices.Equal(lines2, lines) || !bytes.Equal(answers2, answers) || !errors.Is(err2, err) {
				t.Fatalf("%q: in pieces %q, %q, %v; whole %q, %q, %v", in, lines2, answers2, err2, lines, answers, err)
			}
		}
	})
}
