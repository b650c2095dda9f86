package upstream

import "strings"

// Trust is what makes the other side trust us for a target: once in each form.
type Trust struct {
	CLI       string // commands of the vendor's command line
	Terraform string
}

// Resource is a name as Terraform takes it for a resource.
func Resource(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}
