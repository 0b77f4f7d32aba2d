package main

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// Telnet bytes (RFC 854).
const (
	telnetSE   = 240
	telnetAYT  = 246 // are you there
	telnetEC   = 247 // erase character
	telnetEL   = 248 // erase line
	telnetSB   = 250
	telnetWILL = 251
	telnetWONT = 252
	telnetDO   = 253
	telnetDONT = 254
	telnetIAC  = 255
)

// The options that are no lasting state but a question, which is answered each time:
// a telnet client that has sent DO TIMING-MARK (RFC 860) shows nothing until it hears.
const (
	timingMark = 6
	logout     = 18 // RFC 727
)

const (
	backspace = 0x08
	del       = 0x7f
)

var errLineTooLong = errors.New("line longer than 1000 bytes")

// telnetState is how far a telnet sequence has come.
type telnetState uint8

const (
	telnetText    telnetState = iota // plain bytes
	telnetCommand                    // after IAC
	telnetOption                     // after IAC WILL, WONT, DO or DONT
	telnetSub                        // inside a sub-negotiation
	telnetSubIAC                     // inside one, after IAC
)

// lineReader cuts a stream of bytes into lines: telnet sequences come out of
// it, rubbed-out characters go, and nothing of an idle connection is kept but
// the piece of a line that has come.
//
// A line ends with LF, CR LF, CR NUL (RFC 854) or a lone CR. Nobody can know whether
// the other half of an end is still to come, so a CR ends the line at once, and an
// LF or NUL that comes next belongs to it.
type lineReader struct {
	partial []byte      // what has come of the line, rubbed out and without telnet bytes
	came    int32       // how many bytes of the line have come, rubbed out ones too
	inSub   int32       // how long the running sub-negotiation is
	lone    int32       // how many CRs are next, each of which ends a line
	state   telnetState // how far a telnet sequence is
	verb    byte        // WILL, WONT, DO or DONT, until its option comes
	ended   bool        // the last byte was a CR, and has ended a line
	asked   bool        // telnet asks whether the server is there
	options *answered   // nil: telnet has asked for nothing
}

// answered is what was answered to telnet: it has one bit for each lasting option,
// which is answered once.
type answered struct {
	do, will [256 / 8]byte
	unsent   []byte
}

// answers takes what telnet has to be told now.
func (r *lineReader) answers() (answers []byte) {
	if r.options != nil {
		answers, r.options.unsent = r.options.unsent, nil
	}
	return answers
}

// wasAsked reports whether telnet wants to see that the server is there.
func (r *lineReader) wasAsked() (asked bool) {
	asked, r.asked = r.asked, false
	return asked
}

// next takes bytes from in. It returns the next line without its end, valid
// until the next call, or nil when in holds no more line ends, and how many
// bytes of in it took. It fails once 1000 bytes have come with no line end.
func (r *lineReader) next(in []byte) (line []byte, taken int, err error) {
	if r.came == 0 && r.state == telnetText && !r.ended {
		if line, taken = wholeLine(in); taken > 0 {
			return line, taken, nil
		}
	}
	for i := 0; i < len(in); {
		n, ends := r.lineEnd(in[i:])
		if ends && int(r.came)+n > maxLine {
			return nil, i + n, errLineTooLong
		}
		if ends {
			return r.cut(), i + n, nil
		}
		if i += n; n > 0 {
			continue
		}
		r.take(in[i])
		if i++; r.came >= maxLine || r.inSub >= maxLine {
			return nil, i, errLineTooLong
		}
	}
	return nil, len(in), nil
}

// wholeLine is the way of nearly every line: it stands in the input as a whole
// and nothing in it needs a second look. taken is 0 where that is not so.
func wholeLine(in []byte) (line []byte, taken int) {
	end := bytes.IndexByte(in, '\n')
	if end < 0 || end >= maxLine {
		return nil, 0
	}
	line = bytes.TrimSuffix(in[:end], []byte{'\r'})
	for _, c := range line {
		if c == telnetIAC || c == '\r' || c == backspace || c == del {
			return nil, 0
		}
	}
	return line, end + 1
}

// lineEnd looks whether in begins with the end of a line. It returns how many bytes
// belong to one, and whether the line ends now: it has already where they are the rest
// of an end. Any run of CRs before an LF or NUL belongs to that one end.
func (r *lineReader) lineEnd(in []byte) (n int, ends bool) {
	c := in[0]
	switch {
	case c == 0 && r.ended && r.state == telnetText:
	case (c == '\n' || c == '\r') && r.state <= telnetCommand:
		r.state = telnetText // a lone 255 was no telnet command
	default:
		return 0, false
	}
	if c == '\r' && r.lone == 0 {
		for n < len(in) && in[n] == '\r' {
			n++
		}
		if n == len(in) || in[n] != '\n' && in[n] != 0 {
			r.lone = int32(n)
		}
	}
	if r.lone > 0 {
		r.lone--
		r.ended = true
		return 1, true
	}
	ends, r.ended = !r.ended, false
	return n + 1, ends
}

// cut ends the line.
func (r *lineReader) cut() (line []byte) {
	line = r.partial
	if line == nil {
		line = []byte{}
	}
	r.partial, r.came = nil, 0
	return line
}

// over notes that no more bytes come, and reports whether a line has begun that no
// line end has ended.
func (r *lineReader) over() (unfinished bool) {
	r.state, r.ended = telnetText, false // a sequence that has begun is none
	return len(r.partial) > 0
}

// take moves the telnet machine by one byte.
func (r *lineReader) take(c byte) {
	switch r.state {
	case telnetText:
		r.takeText(c)
	case telnetCommand:
		r.takeCommand(c)
	case telnetOption:
		r.answer(c)
		r.state = telnetText
	case telnetSub:
		r.inSub++
		if c == telnetIAC {
			r.state = telnetSubIAC
		}
	case telnetSubIAC:
		r.inSub++
		r.state = telnetSub
		if c == telnetSE {
			r.state, r.inSub = telnetText, 0
		}
	}
}

// takeText adds one byte to the line, or rubs out the character before it.
func (r *lineReader) takeText(c byte) {
	if c == telnetIAC {
		r.state = telnetCommand
		return
	}
	switch r.ended = false; c {
	case backspace, del:
		r.rubOut()
	default:
		r.partial = append(r.partial, c)
	}
	r.came++
}

// rubOut takes the last character, not only its last byte, off the line.
func (r *lineReader) rubOut() {
	for n := len(r.partial); n > 0; n = len(r.partial) {
		c, size := utf8.DecodeLastRune(r.partial)
		r.partial = r.partial[:n-size]
		if !isControl(c) {
			return
		}
	}
}

// takeCommand handles the byte after IAC.
func (r *lineReader) takeCommand(c byte) {
	switch c {
	case telnetWILL, telnetWONT, telnetDO, telnetDONT:
		r.verb, r.state = c, telnetOption
	case telnetSB:
		r.state, r.inSub = telnetSub, 0
	case telnetIAC: // a doubled IAC is the byte itself
		r.partial = append(r.partial, telnetIAC)
		r.came++
		r.state, r.ended = telnetText, false
	case telnetEC:
		r.rubOut()
		r.state = telnetText
	case telnetEL:
		r.partial, r.state = nil, telnetText
	case telnetAYT:
		r.asked, r.state = true, telnetText
	default: // the mark of urgent data, say
		r.state = telnetText
	}
}

// answer refuses an option: DO x by WONT x, WILL x by DONT x; a lasting one once, since
// a client that answers the answer would never come to an end.
func (r *lineReader) answer(option byte) {
	if r.verb != telnetDO && r.verb != telnetWILL {
		return
	}
	if r.options == nil {
		r.options = new(answered)
	}
	seen, reply := &r.options.do, byte(telnetWONT)
	if r.verb == telnetWILL {
		seen, reply = &r.options.will, telnetDONT
	}
	question := r.verb == telnetDO && (option == timingMark || option == logout)
	if bit := byte(1) << (option % 8); question || seen[option/8]&bit == 0 {
		seen[option/8] |= bit
		r.options.unsent = append(r.options.unsent, telnetIAC, reply, option)
	}
}
