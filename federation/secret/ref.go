package secret

// Ref says where a secret is: in a file or in an environment variable, never the secret itself. Exactly one field
// is set. Whoever owns the configuration resolves it; what refers to a secret never holds it.
type Ref struct {
	File string `yaml:"file,omitempty" json:"file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of a file that holds the secret; relative paths start at the configuration directory. One trailing line break is removed. No default. Refused when others can read or its group can write it."`
	Env  string `yaml:"env,omitempty" json:"env,omitempty" jsonschema:"pattern=^[A-Za-z_][A-Za-z0-9_]*$" jsonschema_description:"Name of an environment variable that holds the secret. No default. Refused when it is not set."`
}

// IsZero reports whether r refers to nothing.
func (r Ref) IsZero() bool { return r == Ref{} }
