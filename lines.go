package main

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// Telnet bytes (RFC 854).
const (
	telnetSE   = 240
	telnetSB   = 250
	telnetWILL = 251
	telnetWONT = 252
	telnetDO   = 253
	telnetDONT = 254
	telnetIAC  = 255
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
type lineReader struct {
	partial []byte      // what has come of the line, rubbed out and without telnet bytes
	came    int32       // how many bytes of the line have come, rubbed out ones too
	inSub   int32       // how long the running sub-negotiation is
	state   telnetState // how far a telnet sequence is
	verb    byte        // WILL, WONT, DO or DONT, until its option comes
	options *answered   // nil: telnet has asked for nothing
}

// answered is what was answered to telnet: it has one bit for each option, which
// is answered once.
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

// next takes bytes from in. It returns the next line without its end, valid
// until the next call, or nil when in holds no more line ends, and how many
// bytes of in it took. It fails once 1000 bytes have come with no line end.
func (r *lineReader) next(in []byte) (line []byte, taken int, err error) {
	if r.came == 0 && r.state == telnetText {
		if line, taken = wholeLine(in); taken > 0 {
			return line, taken, nil
		}
	}
	for i, c := range in {
		if c == '\n' && (r.state == telnetText || r.state == telnetCommand) {
			r.state = telnetText // a lone 255 was no telnet command
			line = r.partial
			if line == nil {
				line = []byte{}
			}
			r.partial, r.came = nil, 0
			return bytes.TrimSuffix(line, []byte{'\r'}), i + 1, nil
		}
		r.take(c)
		if r.came >= maxLine || r.inSub >= maxLine {
			return nil, i + 1, errLineTooLong
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
		if c == telnetIAC || c == backspace || c == del {
			return nil, 0
		}
	}
	return line, end + 1
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
	switch c {
	case telnetIAC:
		r.state = telnetCommand
		return
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
		r.state = telnetText
	default:
		r.state = telnetText
	}
}

// answer refuses an option: DO x by WONT x, WILL x by DONT x, once each.
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
	if bit := byte(1) << (option % 8); seen[option/8]&bit == 0 {
		seen[option/8] |= bit
		r.options.unsent = append(r.options.unsent, telnetIAC, reply, option)
	}
}
