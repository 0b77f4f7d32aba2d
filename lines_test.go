package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"homeroom/test/wire"
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
		{in: "a\r\x00b\r\x00\r\x00", lines: []string{"a", "b", ""}}, // RFC 854: Enter in a telnet client
		{in: "a\rb\r", lines: []string{"a", "b"}},                   // nothing but CR
		{in: "a\r\x00\nb\x00\n", lines: []string{"a", "", "b\x00"}}, // a NUL, an LF is of one end only
		{in: "a\r\n\nb\n", lines: []string{"a", "", "b"}},
		{in: "\ra\r\n\rb\n", lines: []string{"", "a", "", "b"}},
		{in: "a\r\xff\xf1\nb\r\n", lines: []string{"a", "b"}}, // telnet bytes are not there
		{in: "a\xff\rb\xff\r\nc\xff\n", lines: []string{"a", "b", "c"}},
		{in: "a\r\x08\n", lines: []string{"a", ""}},
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
		{in: "\xff\xfd\x06a\xff\xfd\x06\n", lines: []string{"a"}, answers: "\xff\xfc\x06\xff\xfc\x06"}, // TIMING-MARK
		{in: "\xff\xfd\x12\xff\xfd\x12\n", lines: []string{""}, answers: "\xff\xfc\x12\xff\xfc\x12"},   // LOGOUT
		{in: "\xff\xfb\x06\xff\xfb\x06\n", lines: []string{""}, answers: "\xff\xfe\x06"},               // is no question
		{in: "a\xff\xf1b\xff\xf4\xff\xf2c\n", lines: []string{"abc"}},                                  // NOP, interrupt, the urgent mark
		{in: "aé\xff\xf7\xff\xf7b\n", lines: []string{"b"}},                                            // erase character
		{in: "\xff\xf7\n", lines: []string{""}},
		{in: "a\nbcé\xff\xf8d\n\xff\xf8\n", lines: []string{"a", "d", ""}}, // erase line
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

// TestLineEnds: a run of CRs belongs to the LF or NUL after it, as far as that has come.
func TestLineEnds(t *testing.T) {
	for _, c := range []struct{ pieces, want string }{ // | is between two pieces, and between lines
		{"a\r\r\nb\r\r\r\x00c\n", "a|b|c"},
		{"a\r|\r\nb\n", "a|b"},
		{"a\r|\n\r\nb\n", "a||b"},
		{"a\r|\x00b\r|c\r|\nd\r|", "a|b|c|d"},
		{"a\r\rb\r\r|\nc\r", "a||b||c"}, // a key pressed twice
		{"a\r|\r|\n", "a|"},
		{strings.Repeat("\r", 3), "||"},
		{strings.Repeat("\r", 900) + "\n", ""},
	} {
		var pieces [][]byte
		for piece := range strings.SplitSeq(c.pieces, "|") {
			pieces = append(pieces, []byte(piece))
		}
		lines, _, err := readLines(pieces...)
		if got := strings.Join(lines, "|"); err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.pieces, got, err, c.want)
		}
	}
}

// TestAreYouThere: telnet's question is noted once for each look at it.
func TestAreYouThere(t *testing.T) {
	var r lineReader
	line, n, err := r.next([]byte("a\xff\xf6b\xff\xf6c\nd"))
	if string(line) != "abc" || n != 8 || err != nil || !r.wasAsked() || r.wasAsked() {
		t.Errorf("%q, %d, %v, or it was not asked once", line, n, err)
	}
}

// TestUnfinishedLine: what has come when the stream ends, in the middle of a telnet
// sequence too.
func TestUnfinishedLine(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a\n": "", "a\nb": "b", "a\r": "", "b\x08": "", "b\xff": "b", "b\xff\xfd": "b", "b\xff\xfa\x18x\n": "b",
	} {
		var r lineReader
		for rest := []byte(in); len(rest) > 0; {
			_, n, err := r.next(rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got := ""
		if r.over() {
			line, _, err := r.next([]byte("\n"))
			if got = string(line); err != nil {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Errorf("%q ends with the line %q, want %q", in, got, want)
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
		{"999 and CR", x(999) + "\r", []string{x(999)}},
		{"1000 and CR", x(1000) + "\r", nil},
		{"998 and CR NUL", x(998) + "\r\x00" + x(998) + "\r\x00", []string{x(998), x(998)}},
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

// TestLineLimitOfEnds: an end is counted as far as it has come with the line.
func TestLineLimitOfEnds(t *testing.T) {
	for _, c := range []struct{ xs, most int }{{999, 1}, {998, 2}, {1, 999}} {
		for _, end := range []string{"\n", "\x00"} {
			line := append(bytes.Repeat([]byte{'x'}, c.xs), bytes.Repeat([]byte{'\r'}, c.most-1)...)
			if lines, _, err := readLines(append(line, end...)); c.most > 1 && (err != nil || len(lines) != 1) {
				t.Errorf("%d and %d CRs: %d lines, %v", c.xs, c.most-1, len(lines), err)
			}
			if _, _, err := readLines(append(append(line, '\r'), end...)); !errors.Is(err, errLineTooLong) {
				t.Errorf("%d and %d CRs: %v, want it too long", c.xs, c.most, err)
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

// TestLineEndsEverywhere: commands, the text of a post and passwords have no end of a
// line in them, whatever the ends are.
func TestLineEndsEverywhere(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	for i, end := range []string{"\n", "\r\n", "\r\x00", "\r", "\r\r\n"} {
		c, name := srv.Dial(), fmt.Sprint("user", i)
		c.Raw("#login anon " + name + end + "#createlogin " + name + " päss r m" + end + "#login regd " + name + " päss" + end)
		c.Expect("@status 0", "@status 0", "@status 0")
		c.Raw("#creategroup " + name + " päss" + end + "#joingroup " + name + " päss" + end + "#postmessage h 0 3" + end + "a" + end + end + " b" + end)
		c.Expect("@status 0", "@status 0", "@status 0")
		id := c.Listed("#listmessages", "h")[2]
		c.Raw("#getmessage " + id + end + "#broadcast hi" + end)
		c.Expect("@ret #getmessage h 3 "+id+" 0 0 2592000", "a", "", " b", "@mess #broadcast "+name+` "hi"`, "@status 0")
		again := srv.Dial()
		again.Ask("#login regd "+name+" päss", "@status 0")
		again.Ask("#joingroup "+name+" päss", "@status 0")
		again.Ask("#quit", "@status 0")
		c.Ended(`@mess #warning "logged in from another place"`)
	}
}

// TestFirstAndLastLine: a BOM before the first line does not count; what comes before
// the end of the stream is a line without an end of its own too.
func TestFirstAndLastLine(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	for in, want := range map[string][]string{
		"#ping": {"@ret #ping"}, "\ufeff#ping a\r\n#ping b": {"@ret #ping a", "@ret #ping b"},
		"\ufeff#login anon a\n#broadcast hi\xff\xfd": {"@status 0", `@mess #broadcast a "hi"`, "@status 0"},
		"\ufeff#login anon b\n\ufeff#ping":           {"@status 0", "@status 3502"},
		"\ufeff\ufeff#ping":                          {"@status 3502"},
		"\ufeffGET / HTTP/1.1":                       nil, "GET / HTTP/1.1": nil,
		"#login anon c\n#creategroup g \"\" anon\n#joingroup g\n#postmessage h 0 2\none\ntwo": {"@status 0", "@status 0", "@status 0", "@status 0"},
		"#login anon d\n#postmessage h 0 2\none":                                              {"@status 0"},
	} {
		for _, c := range []*wire.Client{srv.Dial(), srv.overTLS()} {
			c.Raw(in)
			if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := ended(c); !slices.Equal(got, want) && !strings.Contains(in, "creategroup") {
				t.Errorf("%q: %q, want %q", in, got, want)
			}
		}
	}
	c := srv.Guest("reader")
	c.Ask("#joingroup g", "@status 0")
	id := c.Listed("#listmessages", "h")[2]
	c.Ask("#getmessage "+id, "@ret #getmessage h 2 "+id+" 0 0 2592000", "one", "two")
}

// ended is all lines until the connection ends.
func ended(c *wire.Client) (lines []string) {
	for {
		line, err := c.ReadErr()
		if err != nil {
			return lines
		}
		lines = append(lines, line)
	}
}

// TestTelnetQuestions: telnet gets its answers on the wire, a program and a person
// their own kind of line.
func TestTelnetQuestions(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	c := srv.Guest("alice")
	c.Raw("\xff\xf4\xff\xfd\x06\xff\xf6\xff\xf6#pi\xff\xf8#pinx\xff\xf7g a\r\n")
	c.Expect("\xff\xfc\x06"+`@mess #warning "yes, the server is here"`, "@ret #ping a")
	c.Raw("\xff\xfd\x06#ping b\r\n")
	c.Expect("\xff\xfc\x06@ret #ping b")
	p := srv.Dial()
	p.Raw("bob\r\n")
	p.Expect("Hello bob. You are in Home with alice.", "Type to talk.  /help shows what else there is, /quit leaves.")
	p.Raw("\xff\xf6")
	p.Expect("* yes, the server is here")
}

// hasCRRun reports whether there are CRs with no text between them. As long as not all
// have come, nobody can say whether they are one end or several.
func hasCRRun(in []byte) bool {
	between := bytes.Split(in, []byte{'\r'})
	return len(between) > 2 && slices.ContainsFunc(between[1:len(between)-1], func(b []byte) bool { return len(b) == 0 || b[0] == telnetIAC })
}

// FuzzLineReader checks that it does not matter how the bytes are cut into
// reads, and that no telnet byte or rubbed-out character gets through.
func FuzzLineReader(f *testing.F) {
	for _, in := range []string{
		"#ping\r\n", "ab\x08c\x7f\n", "\xff\xfd\x01#a\xff\xfa\x18\n\xff\xff\xff\xf0b\n", "\xff\xff\n\xff",
		strings.Repeat("x", 999) + "\n", strings.Repeat("é", 499) + "\xff\xf1\n", "\xff\xfa" + strings.Repeat("y", 1000),
		"a\r\x00b\rc\r\r\n\r\r", "a\xff\xf7\xff\xf8b\r\xff\xf6\x00\xff\xfd\x06", "a\xff\r\x00\x00\n",
	} {
		f.Add([]byte(in), uint16(1), uint16(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, first, step uint16) {
		lines, answers, err := readLines(in)
		for _, line := range lines {
			if strings.ContainsAny(line, "\r\n\x08\x7f") || len(line) >= maxLine {
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
			if bytes.Contains(in, []byte{'\r'}) && (err != nil || err2 != nil) {
				continue // how much of an end had come decides whether the line was too long
			}
			if hasCRRun(in) {
				empty := func(line string) bool { return line == "" }
				lines, lines2 = slices.DeleteFunc(slices.Clone(lines), empty), slices.DeleteFunc(lines2, empty)
			}
			if !slices.Equal(lines2, lines) || !bytes.Equal(answers2, answers) || !errors.Is(err2, err) {
				t.Fatalf("%q: in pieces %q, %q, %v; whole %q, %q, %v", in, lines2, answers2, err2, lines, answers, err)
			}
		}
	})
}
