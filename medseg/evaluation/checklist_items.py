"""The items of three reporting checklists in a few words of our own, and which part of a run answers each.

A line is ``number | topic | what the item asks | answer``; an empty answer is the author's to write.
Answers are names in `medseg.evaluation.checklists.ANSWERS`. Numbers follow the published lists as far as we
know them; the journal's own form is what counts.
"""

from __future__ import annotations

CLAIM_2024 = """
1 | Title | names the kind of AI and that it is one | kind
2 | Abstract | structured, with design, methods, results, conclusion |
3 | Background | clinical question and role of the AI |
4 | Objectives | aims and hypotheses, stated before |
5 | Design | prospective or retrospective |
6 | Goal | development, feasibility, testing, non-inferiority | goal
7 | Data sources | where and when the images come from |
8 | Eligibility | who was included and excluded, and why | eligibility
9 | Preprocessing | from scanner files to the model's input | preprocessing
10 | Subsets | parts of the data that were selected | subsets
11 | De-identification | how identity was removed | deidentified
12 | Missing data | what was done where data were missing | missing
13 | Acquisition | scanners, protocols, resolution | acquisition
14 | Reference standard | definition |
15 | Reference standard | why this one, its limits |
16 | Reference standard | who made it, with what training |
17 | Reference standard | how the test set was annotated |
18 | Readers | variability between and within readers | readers
19 | Sample size | how it was chosen, what it can show | sample_size
20 | Partitions | how data were assigned to training and test | partitions
21 | Partitions | at which level they are disjoint | disjoint
22 | Model | architecture, inputs, outputs | model
23 | Software | libraries and versions | software
24 | Initial weights | random or carried over | weights
25 | Training | augmentation, optimiser, stopping | training
26 | Choice of model | how the final one was chosen | choice
27 | Ensembling | how many models, how joined | ensemble
28 | Metrics | which, and why | metrics
29 | Uncertainty | intervals and tests | uncertainty
30 | Robustness | sensitivity analyses, data unlike the training's | robustness
31 | Explainability | methods and how they were checked |
32 | Internal testing | data of the same source | internal
33 | External testing | data of another source | external
34 | Registration | of a trial |
35 | Flow | numbers in and out, with reasons | flow
36 | Demographics | of each partition | demographics
37 | Performance | on all partitions, against the reference | performance
38 | Precision | intervals of the estimates | precision
39 | Failures | which cases failed, and how | failures
40 | Limits | bias, uncertainty, generalisability |
41 | Practice | what it means for patients and clinics |
42 | Protocol | where the full one is |
43 | Availability | of software, weights, data | availability
44 | Funding | and role of the funders |
"""

STARD_AI = """
1 | Title | says it is a study of diagnostic accuracy with AI | kind
2 | Abstract | structured |
3 | Background | intended use and clinical role of the test |
4 | Objectives | and hypotheses |
5 | Design | data before or after the tests were done |
6 | Eligibility | criteria | eligibility
7 | Identification | how possible participants were found |
8 | Setting | place and dates |
9 | Series | consecutive, random, or convenience |
10a | Index test | the model in enough detail to repeat it | model
10b | Reference standard | in enough detail to repeat it |
11 | Reference standard | why this one |
12a | Cut-offs of the index test | set before or found here | threshold
12b | Cut-offs of the reference | set before or found here |
13a | Blinding | of those who ran the index test | blinding
13b | Blinding | of those who made the reference |
14 | Analysis | measures of accuracy and how they are compared | metrics
15 | Indeterminate results | how they were handled | missing
16 | Missing data | of test and reference | missing
17 | Variability | subgroups, stated before or explored | subgroups
18 | Sample size | intended, and how chosen | sample_size
19 | Flow | diagram of participants | flow
20 | Characteristics | of the participants | demographics
21a | Severity | of disease in those who have it | severity
21b | Alternative diagnoses | in those who do not |
22 | Time | and treatment between test and reference |
23 | Results | of the test against the reference | performance
24 | Precision | of the estimates | precision
25 | Harm | adverse events of test or reference |
26 | Limits | bias, uncertainty, generalisability |
27 | Practice | intended use and role |
28 | Registration | number and name |
29 | Protocol | where it is |
30 | Funding | and role of the funders |
AI: data | Data sets | source, handling, split, and that test data were not seen | disjoint
AI: input | Input | what an image must be for the test to run, and what is refused | preprocessing
AI: version | Index test | version and identity of the model and its software | availability
AI: shift | Generalisability | how test data differ from training data | robustness
AI: fairness | Bias | accuracy in groups of patients | subgroups
AI: errors | Failures | cases the model fails in | failures
AI: access | Availability | of data, code, model | availability
"""

TRIPOD_AI = """
1 | Title | development or evaluation, population, outcome | goal
2 | Abstract | structured, by its own list |
3a | Background | context, and models that exist |
3b | Background | target population and place in the care pathway |
3c | Background | known inequalities between groups |
4 | Objectives | development, evaluation, or both | goal
5a | Data | sources, and why they are fit |
5b | Data | dates |
6a | Participants | setting and centres |
6b | Participants | eligibility | eligibility
6c | Participants | treatments |
7 | Preparation | preprocessing and quality checks, alike in all groups | preprocessing
8a | Outcome | definition and how it was assessed |
8b | Outcome | who assessed it |
8c | Outcome | blinding | blinding
9a | Predictors | what goes in, and why | input
9b | Predictors | definition and measurement | acquisition
9c | Predictors | blinding |
10 | Sample size | how it was arrived at | sample_size
11 | Missing data | how it was handled | missing
12a | Analysis | how data were used and parted | partitions
12b | Analysis | how predictors were handled | preprocessing
12c | Analysis | type of model, steps of building, internal validation | training
12d | Analysis | differences between clusters such as sites | subgroups
12e | Analysis | measures of performance | metrics
12f | Analysis | updating of the model | updating
12g | Analysis | how predictions were made in evaluation | prediction
13 | Class imbalance | methods, and recalibration |
14 | Fairness | how it was approached | subgroups
15 | Output | what the model gives, and thresholds | threshold
16 | Training and evaluation | differences of the data | robustness
17 | Ethics | approval and consent |
18a | Open science | funding |
18b | Open science | conflicts of interest |
18c | Open science | protocol |
18d | Open science | registration |
18e | Open science | sharing of data |
18f | Open science | sharing of code | availability
19 | Involvement | of patients and the public |
20a | Participants | flow | flow
20b | Participants | characteristics of each data set | demographics
20c | Participants | training and evaluation data compared | robustness
21 | Development | numbers in each analysis | numbers
22 | Model | enough to use it | availability
23a | Performance | with intervals, in groups too | performance
23b | Performance | differences between clusters | subgroups
24 | Updating | results | updating
25 | Interpretation | with fairness and earlier studies |
26 | Limits | and their effect |
27a | Use | poor or missing input at use |
27b | Use | what users must do and know |
27c | Use | next steps |
"""

CHECKLISTS = {"CLAIM 2024": CLAIM_2024, "STARD-AI": STARD_AI, "TRIPOD+AI": TRIPOD_AI}
