package github

// claims are those of GitHub Actions in 2026. Ids are JSON strings: a number refuses the token.
type claims struct {
	RepositoryID         string `json:"repository_id"`
	RepositoryOwnerID    string `json:"repository_owner_id"`
	EnterpriseID         string `json:"enterprise_id"`
	Repository           string `json:"repository"`
	RepositoryOwner      string `json:"repository_owner"`
	RepositoryVisibility string `json:"repository_visibility"`
	Enterprise           string `json:"enterprise"`
	Ref                  string `json:"ref"`
	RefType              string `json:"ref_type"`
	RefProtected         string `json:"ref_protected"`
	SHA                  string `json:"sha"`
	EventName            string `json:"event_name"`
	BaseRef              string `json:"base_ref"`
	HeadRef              string `json:"head_ref"`
	Actor                string `json:"actor"`
	ActorID              string `json:"actor_id"`
	Environment          string `json:"environment"`
	RunnerEnvironment    string `json:"runner_environment"`
	Workflow             string `json:"workflow"`
	WorkflowRef          string `json:"workflow_ref"`
	WorkflowSHA          string `json:"workflow_sha"`
	JobWorkflowRef       string `json:"job_workflow_ref"`
	JobWorkflowSHA       string `json:"job_workflow_sha"`
	RunID                string `json:"run_id"`
	RunNumber            string `json:"run_number"`
	RunAttempt           string `json:"run_attempt"`
	CheckRunID           string `json:"check_run_id"`
}

// attributes are what rules can ask about, each read from the claim of its name. An empty claim is absent.
var attributes = []struct {
	name, doc string
	anchor    bool
	value     func(*claims) string
}{
	{"repository_id", "Id of the repository that the job runs for; never given again.", true, func(c *claims) string { return c.RepositoryID }},
	{"repository_owner_id", "Id of the user or organisation that owns it; never given again.", true, func(c *claims) string { return c.RepositoryOwnerID }},
	{"enterprise_id", "Id of the enterprise that the owner belongs to; absent without one.", true, func(c *claims) string { return c.EnterpriseID }},
	{"repository", "Name of the repository, owner/name; can be renamed and taken by somebody else.", false, func(c *claims) string { return c.Repository }},
	{"repository_owner", "Name of its owner; can be renamed and taken by somebody else.", false, func(c *claims) string { return c.RepositoryOwner }},
	{"repository_visibility", "public, private or internal.", false, func(c *claims) string { return c.RepositoryVisibility }},
	{"enterprise", "Slug of the enterprise; can be renamed.", false, func(c *claims) string { return c.Enterprise }},
	{"ref", "Git reference that triggered the run; whoever can push chooses it, and it is the base branch in pull_request_target.", false, func(c *claims) string { return c.Ref }},
	{"ref_type", "branch or tag.", false, func(c *claims) string { return c.RefType }},
	{"ref_protected", "\"true\" when the reference is protected, a string as GitHub writes it; absent on older servers.", false, func(c *claims) string { return c.RefProtected }},
	{"sha", "Commit that triggered the run; forks share commits.", false, func(c *claims) string { return c.SHA }},
	{"event_name", "What triggered the run, such as push or pull_request_target.", false, func(c *claims) string { return c.EventName }},
	{"base_ref", "Target branch of a pull request; absent otherwise.", false, func(c *claims) string { return c.BaseRef }},
	{"head_ref", "Source branch of a pull request, chosen by its author; absent otherwise.", false, func(c *claims) string { return c.HeadRef }},
	{"actor", "Name of who triggered the run, who need not be the author of the code.", false, func(c *claims) string { return c.Actor }},
	{"actor_id", "Id of who triggered the run: immutable, but it says who pressed the button and not whose code runs, so it is no anchor.", false, func(c *claims) string { return c.ActorID }},
	{"environment", "Environment of the job; protects only with protection rules. Absent when the job names none.", false, func(c *claims) string { return c.Environment }},
	{"runner_environment", "github-hosted or self-hosted.", false, func(c *claims) string { return c.RunnerEnvironment }},
	{"workflow", "Name of the workflow: free text that its author chooses.", false, func(c *claims) string { return c.Workflow }},
	{"workflow_ref", "Path and reference of the workflow that was triggered.", false, func(c *claims) string { return c.WorkflowRef }},
	{"workflow_sha", "Commit of that workflow's file.", false, func(c *claims) string { return c.WorkflowSHA }},
	{"job_workflow_ref", "Path and reference of the workflow whose code the job runs, also when it is a reused one; its repository is a name.", false, func(c *claims) string { return c.JobWorkflowRef }},
	{"job_workflow_sha", "Commit of that workflow's file.", false, func(c *claims) string { return c.JobWorkflowSHA }},
	{"run_id", "Id of the run.", false, func(c *claims) string { return c.RunID }},
	{"run_number", "Number of the run inside its workflow.", false, func(c *claims) string { return c.RunNumber }},
	{"run_attempt", "How often the run was started.", false, func(c *claims) string { return c.RunAttempt }},
	{"check_run_id", "Id of the job's check run.", false, func(c *claims) string { return c.CheckRunID }},
}
