package mdns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// The bits of a class that multicast DNS has for itself (RFC 6762, 10.2 and 5.4).
const (
	flushBit  = 1 << 15 // of a record: there are no others of its name and type
	classBits = flushBit - 1
)

// maxRecords is how many questions, and records of each kind, one packet may
// hold. The rest is ignored.
const maxRecords = 200

// message is a packet, as far as it can be understood.
type message struct {
	id        uint16
	response  bool
	questions []dnsmessage.Question
	answers   []dnsmessage.Resource // of a question: those that its sender knows already
	claims    []dnsmessage.Resource // of a probe: those that its sender wants to announce
	more      []dnsmessage.Resource
}

var errNotMDNS = errors.New("this is no message of multicast DNS")

// parse reads a packet. Records that are of a kind of their own, or broken,
// are passed over; a packet that cannot be followed to its end is refused.
func parse(packet []byte) (*message, error) {
	var p dnsmessage.Parser
	head, err := p.Start(packet)
	if err != nil {
		return nil, fmt.Errorf("reading a packet: %w", err)
	}
	if head.OpCode != 0 || head.RCode != dnsmessage.RCodeSuccess {
		return nil, errNotMDNS
	}
	m := &message{id: head.ID, response: head.Response}
	if m.questions, err = readSection(p.Question, p.SkipQuestion); err == nil {
		err = p.SkipAllQuestions()
	}
	for _, section := range []struct {
		into *[]dnsmessage.Resource
		head func() (dnsmessage.ResourceHeader, error)
		skip func() error
		rest func() error
	}{
		{&m.answers, p.AnswerHeader, p.SkipAnswer, p.SkipAllAnswers},
		{&m.claims, p.AuthorityHeader, p.SkipAuthority, p.SkipAllAuthorities},
		{&m.more, p.AdditionalHeader, p.SkipAdditional, p.SkipAllAdditionals},
	} {
		read := func() (dnsmessage.Resource, error) { return readRecord(&p, section.head) }
		if err == nil {
			*section.into, err = readSection(read, section.skip)
		}
		if err == nil {
			err = section.rest()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading a packet: %w", err)
	}
	return m, nil
}

// readSection reads a section, without the records that cannot be read.
func readSection[T any](read func() (T, error), skip func() error) (all []T, err error) {
	for range maxRecords {
		one, err := read()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return all, nil
		}
		if err == nil {
			all = append(all, one)
		} else if err := skip(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// errOtherKind is a record of a kind that says nothing about services.
var errOtherKind = errors.New("a record of another kind")

// readRecord reads one record. Header and content are read on their own, because
// after an error in the content of a record that is read in one, the parser does
// not find the next one.
func readRecord(p *dnsmessage.Parser, head func() (dnsmessage.ResourceHeader, error)) (r dnsmessage.Resource, err error) {
	if r.Header, err = head(); err != nil {
		return r, err
	}
	switch r.Header.Type {
	case dnsmessage.TypeA:
		var body dnsmessage.AResource
		body, err = p.AResource()
		r.Body = &body
	case dnsmessage.TypeAAAA:
		var body dnsmessage.AAAAResource
		body, err = p.AAAAResource()
		r.Body = &body
	case dnsmessage.TypePTR:
		var body dnsmessage.PTRResource
		body, err = p.PTRResource()
		r.Body = &body
	case dnsmessage.TypeSRV:
		var body dnsmessage.SRVResource
		body, err = p.SRVResource()
		r.Body = &body
	case dnsmessage.TypeTXT:
		var body dnsmessage.TXTResource
		body, err = p.TXTResource()
		r.Body = &body
	default:
		err = errOtherKind
	}
	return r, err
}

// records is all that a response says.
func (m *message) records() []dnsmessage.Resource {
	return slices.Concat(m.answers, m.claims, m.more)
}

// sameName compares names of hosts and services: letters of either case are the
// same.
func sameName(a, b dnsmessage.Name) bool { return strings.EqualFold(a.String(), b.String()) }

// inNet reports whether a record or question is of the Internet class.
func inNet(c dnsmessage.Class) bool {
	c &= classBits
	return c == dnsmessage.ClassINET || c == dnsmessage.ClassANY
}

// usualData is the length up to which contents are compared without taking memory.
const usualData = 512

// appendData appends the content of a record in a form that can be compared;
// nothing for kinds that are never compared.
func appendData(b []byte, body dnsmessage.ResourceBody) []byte {
	switch body := body.(type) {
	case *dnsmessage.AResource:
		return append(b, body.A[:]...)
	case *dnsmessage.AAAAResource:
		return append(b, body.AAAA[:]...)
	case *dnsmessage.PTRResource:
		return appendLabels(b, body.PTR)
	case *dnsmessage.SRVResource:
		b = binary.BigEndian.AppendUint16(b, body.Priority)
		b = binary.BigEndian.AppendUint16(b, body.Weight)
		b = binary.BigEndian.AppendUint16(b, body.Port)
		return appendLabels(b, body.Target)
	case *dnsmessage.TXTResource:
		for _, text := range body.TXT {
			b = append(append(b, byte(len(text))), text...)
		}
	}
	return b
}

// appendLabels appends a name as it is in a packet, in small letters. Only those
// of ASCII have them here (RFC 6762, 16).
func appendLabels(b []byte, name dnsmessage.Name) []byte {
	dot := []byte{'.'}
	rest := bytes.TrimSuffix(name.Data[:name.Length], dot)
	for more := true; more; {
		var label []byte
		label, rest, more = bytes.Cut(rest, dot)
		b = append(b, byte(len(label)))
		for _, c := range label {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			b = append(b, c)
		}
	}
	return append(b, 0)
}

// sameData reports whether two records of one name have the same content.
func sameData(a, b dnsmessage.Resource) bool {
	return a.Header.Type == b.Header.Type && compareData(a.Body, b.Body) == 0
}

// compareRecords is the order by which simultaneous probes are decided (RFC 6762,
// 8.2.1).
func compareRecords(a, b dnsmessage.Resource) int {
	if a.Header.Type != b.Header.Type {
		return int(a.Header.Type) - int(b.Header.Type)
	}
	return compareData(a.Body, b.Body)
}

// compareData compares contents, on the stack: others can have it done often.
func compareData(a, b dnsmessage.ResourceBody) int {
	var inA, inB [usualData]byte
	return bytes.Compare(appendData(inA[:0], a), appendData(inB[:0], b))
}

// question asks for records of a name.
func question(name dnsmessage.Name, kind dnsmessage.Type) dnsmessage.Question {
	return dnsmessage.Question{Name: name, Type: kind, Class: dnsmessage.ClassINET}
}
