package mdns

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/dns/dnsmessage"
)

// How many seconds others may remember a record (RFC 6762, 10).
const (
	hostTTL    = 120
	serviceTTL = 4500
)

// typeNSEC is a record that says which records a name does not have.
const typeNSEC dnsmessage.Type = 47

// names are the names on the network of a host and its services. The number of one
// that is taken counts up.
type names struct {
	host, instance             string // as the settings have them
	hostNumber, instanceNumber int    // 1: as they are
}

// hostName is the name of the machine, such as homeroom-2.local.
func (n names) hostName() dnsmessage.Name {
	host := n.host
	if n.hostNumber > 1 {
		end := fmt.Sprintf("-%d", n.hostNumber)
		host = cutLabel(host, MaxLabel-len(end)) + end
	}
	return dnsName(host + ".local.")
}

// instanceName is the name of a service, such as Homeroom (2). Every character is
// allowed, but the DNS library cannot have a dot in a label.
func (n names) instanceName() string {
	end := ""
	if n.instanceNumber > 1 {
		end = fmt.Sprintf(" (%d)", n.instanceNumber)
	}
	return cutLabel(strings.ReplaceAll(n.instance, ".", "-"), MaxLabel-len(end)) + end
}

// service is the full name of a service of a kind.
func (n names) service(kind string) dnsmessage.Name {
	return dnsName(n.instanceName() + "." + kind + ".local.")
}

// cutLabel cuts a part of a name where it is too long, between two characters.
func cutLabel(label string, most int) string {
	if len(label) <= most {
		return label
	}
	for !utf8.RuneStart(label[most]) {
		most--
	}
	return label[:most]
}

// dnsName is a name that is known to fit.
func dnsName(s string) dnsmessage.Name {
	name, _ := dnsmessage.NewName(s)
	return name
}

// record is a record that this server announces on one link.
type record struct {
	dnsmessage.Resource
	shared bool      // others may have records of this name too
	due    time.Time // to be sent then; zero: not to be sent
	sent   time.Time // last
}

// isClaimed reports whether nobody else may have a record of this name and type.
func (r *record) isClaimed() bool { return !r.shared && r.Header.Type != typeNSEC }

// recordsFor is everything that is announced where a machine has these addresses.
func recordsFor(names names, services []Service, addrs []netip.Addr) []*record {
	host := names.hostName()
	var all []*record
	add := func(name dnsmessage.Name, ttl uint32, shared bool, body dnsmessage.ResourceBody) {
		class := dnsmessage.ClassINET
		if !shared {
			class |= flushBit
		}
		head := dnsmessage.ResourceHeader{Name: name, Class: class, TTL: ttl, Type: kindOf(body)}
		all = append(all, &record{Resource: dnsmessage.Resource{Header: head, Body: body}, shared: shared})
	}
	for _, s := range services {
		kind, name := dnsName(s.Type+".local."), names.service(s.Type)
		add(kind, serviceTTL, true, &dnsmessage.PTRResource{PTR: name})
		add(name, hostTTL, false, &dnsmessage.SRVResource{Port: s.Port, Target: host})
		add(name, serviceTTL, false, &dnsmessage.TXTResource{TXT: s.Text})
		add(dnsName("_services._dns-sd._udp.local."), serviceTTL, true, &dnsmessage.PTRResource{PTR: kind})
	}
	for _, a := range addrs {
		if a.Is4() {
			add(host, hostTTL, false, &dnsmessage.AResource{A: a.As4()})
		} else {
			add(host, hostTTL, false, &dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	add(host, hostTTL, false, onlyAddresses(host, addrs))
	return all
}

// onlyAddresses says that a host has these addresses, and none of another family:
// a question for one need not wait for an answer that never comes (RFC 6762, 6.1).
func onlyAddresses(host dnsmessage.Name, addrs []netip.Addr) *dnsmessage.UnknownResource {
	var bits [4]byte
	for _, a := range addrs {
		kind := dnsmessage.TypeAAAA
		if a.Is4() {
			kind = dnsmessage.TypeA
		}
		bits[kind/8] |= 0x80 >> (kind % 8)
	}
	set := bytes.TrimRight(bits[:], "\x00")
	data := append(appendLabels(nil, host), 0, byte(len(set)))
	return &dnsmessage.UnknownResource{Type: typeNSEC, Data: append(data, set...)}
}

// kindOf is the type of a record with this content.
func kindOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch body := body.(type) {
	case *dnsmessage.PTRResource:
		return dnsmessage.TypePTR
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV
	case *dnsmessage.TXTResource:
		return dnsmessage.TypeTXT
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.UnknownResource:
		return body.Type
	}
	return 0
}

// answersTo is the records that answer a question. Where the host has no address
// of the family that was asked for, the answer is that it has none.
func answersTo(q dnsmessage.Question, records []*record) (found []*record) {
	if !inNet(q.Class) {
		return nil
	}
	var none *record
	for _, r := range records {
		switch {
		case !sameName(r.Header.Name, q.Name):
		case r.Header.Type == q.Type || q.Type == dnsmessage.TypeALL:
			found = append(found, r)
		case r.Header.Type == typeNSEC:
			none = r
		}
	}
	if len(found) == 0 && none != nil {
		found = append(found, none)
	}
	return found
}

// answersToAll is the records that answer any of these questions, each once.
func answersToAll(questions []dnsmessage.Question, records []*record) (found []*record) {
	for _, q := range questions {
		for _, r := range answersTo(q, records) {
			if !slices.Contains(found, r) {
				found = append(found, r)
			}
		}
	}
	return found
}

// knows reports whether the sender of a question has the record already, for at
// least half of its time to live (RFC 6762, 7.1).
func (m *message) knows(r *record) bool {
	for _, known := range m.answers {
		if known.Header.TTL >= r.Header.TTL/2 && sameName(known.Header.Name, r.Header.Name) && sameData(known, r.Resource) {
			return true
		}
	}
	return false
}

// besides returns the additional records for these answers (RFC 6763, 12): all the
// others, or only the host's where the question was for its address.
func besides(answers, records []*record) (more []*record) {
	chosen := map[*record]bool{}
	onlyHost := true
	for _, r := range answers {
		chosen[r] = true
		onlyHost = onlyHost && isOfHost(r)
	}
	for _, r := range records {
		listsKinds := r.shared && r.Header.Name.String() == "_services._dns-sd._udp.local."
		if !chosen[r] && !listsKinds && (isOfHost(r) || !onlyHost) {
			more = append(more, r)
		}
	}
	return more
}

// isOfHost reports whether a record is about the machine, not about a service.
func isOfHost(r *record) bool {
	switch r.Header.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, typeNSEC:
		return true
	}
	return false
}

// resources is the records as a message holds them, with this time to live at
// most.
func resources(records []*record, most uint32) []dnsmessage.Resource {
	all := make([]dnsmessage.Resource, len(records))
	for i, r := range records {
		all[i] = r.Resource
		all[i].Header.TTL = min(r.Header.TTL, most)
	}
	return all
}

// packResponse is the packet that has these answers.
func packResponse(answers, more []*record, most uint32) ([]byte, error) {
	m := dnsmessage.Message{
		Header:  dnsmessage.Header{Response: true, Authoritative: true},
		Answers: resources(answers, most), Additionals: resources(more, most),
	}
	return m.Pack()
}

// packDirect is the packet for a program that asks from a port of its own and
// knows no multicast DNS: its question comes back, nothing is remembered for long,
// and no class has bits that it does not know (RFC 6762, 6.7).
func packDirect(asked *message, answers, more []*record) ([]byte, error) {
	const directTTL = 10
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: asked.id, Response: true, Authoritative: true},
		Questions: asked.questions,
		Answers:   resources(answers, directTTL), Additionals: resources(more, directTTL),
	}
	for _, section := range [][]dnsmessage.Resource{m.Answers, m.Additionals} {
		for i := range section {
			section[i].Header.Class &= classBits
		}
	}
	return m.Pack()
}

// packProbe is the packet that asks whether somebody has the names already, with
// the records that are to be announced for them.
func packProbe(records []*record) ([]byte, error) {
	var m dnsmessage.Message
	asked := map[dnsmessage.Name]bool{}
	for _, r := range records {
		if !r.isClaimed() {
			continue
		}
		if name := r.Header.Name; !asked[name] {
			asked[name] = true
			m.Questions = append(m.Questions, question(name, dnsmessage.TypeALL))
		}
		claim := r.Resource
		claim.Header.Class &= classBits
		m.Authorities = append(m.Authorities, claim)
	}
	return m.Pack()
}
