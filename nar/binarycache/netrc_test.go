package binarycache

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNetrc(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       map[string][2]string
		err        string
	}{
		{name: "empty", want: map[string][2]string{}},
		{name: "one line", text: "machine a login b password c", want: map[string][2]string{"a": {"b", "c"}}},
		{name: "lines and comments", text: "# mine\nmachine A.example\n\tlogin b # hers\n", want: map[string][2]string{"a.example": {"b", ""}}},
		{name: "first counts", text: "machine a login b password c\nmachine a login d password e\ndefault login f password g\n",
			want: map[string][2]string{"a": {"b", "c"}, "": {"f", "g"}}},
		{name: "macro", text: "macdef init\ncd /\nmachine x\n\nmachine a password c account z", want: map[string][2]string{"a": {"", "c"}}},
		{name: "quoted", text: `machine a login "b \"c\"" password #d`, want: map[string][2]string{"a": {`b "c"`, "#d"}}},
		{name: "no machine", text: "login a", err: "1: login before any machine"},
		{name: "no value", text: "machine a\nlogin\npassword x", err: "2: nothing after login"},
		{name: "quote", text: "machine a\npassword \"secret\n", err: "2: a quote that does not end"},
		{name: "after default", text: "default login a\n\nmachine b", err: "3: an entry after default"},
		{name: "junk", text: "machine a\nsecret", err: "2: expected machine"},
	} {
		n, err := parseNetrc(tt.text)
		if tt.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: got %v, want %s", tt.name, err, tt.err)
			}
			continue
		}
		got := map[string][2]string{}
		for host, c := range n {
			got[host] = [2]string{c.login, c.password}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, diff)
		}
	}
	n := netrc{"a": {"b", "c"}}
	if _, ok := n.lookup("x.a"); ok {
		t.Error("credentials are for a host alone, not for its subdomains")
	}
	if c, ok := n.lookup("A"); !ok || c.login != "b" {
		t.Error("hosts have no case")
	}
}

func FuzzNetrc(f *testing.F) {
	f.Add("machine a login \"b\" password c\nmacdef x\n\ndefault login d")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseNetrc(text); (n == nil) == (err == nil) {
			t.Errorf("%v, %v", n, err)
		}
	})
}
